import type { Bucket } from '../object-store/object-store.ts';

/** The bucket that the object store has to have: training writes models, the model server reads promoted ones. */
export const modelsBucket: Bucket = { name: 'models', writers: ['training'], readers: ['slm'] };

/** Name of the key that signs lineages and promotions. */
export const LINEAGE_KEY = 'training-lineage';
