export { modelsBucket, Training, type TrainingProps } from './training.ts';
