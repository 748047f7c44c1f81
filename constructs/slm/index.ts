export { Slm, type SlmProps } from './slm.ts';
