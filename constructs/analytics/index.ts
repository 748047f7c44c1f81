export { Analytics, type AnalyticsProps } from './analytics.ts';
