export type { TemporalService } from './server-config.ts';
export { Temporal, type TemporalProps } from './temporal.ts';
