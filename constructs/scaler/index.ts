export { Scaler, type ScalerProps, type ScalerRenderer } from './scaler.ts';
