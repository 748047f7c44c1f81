export { Relations, type RelationsProps } from './relations.ts';
