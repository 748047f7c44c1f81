export { type Bucket, ObjectStore, type ObjectStoreProps } from './object-store.ts';
