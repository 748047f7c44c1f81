export { type CheckerOptions, type CheckOptions, type RelationAnswer, RelationChecker } from './checker.ts';
export { OpenFga, type OpenFgaOptions, RelationsRefused, RelationsUnavailable } from './client.ts';
export { openFgaVariables, relationCheckerOf } from './config.ts';
export { currentModel, ensureModel, locateModel, type ModelLocation, modelDigest, storeName } from './store.ts';
export {
  type ObjectType,
  objectOf,
  objectTypes,
  parseName,
  type RelationSubject,
  type Tuple,
  tenantObject,
  tenantOf,
  userOf,
} from './tuples.ts';
