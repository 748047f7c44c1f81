export { Slm, type SlmModel, type SlmProps } from './slm.ts';
