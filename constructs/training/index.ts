export { modelsBucket } from './models.ts';
export { Training, type TrainingProps } from './training.ts';
