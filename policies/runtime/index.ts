export { type Entrypoint, entrypoints, type Manifest, RefusedBundle } from './bundle.ts';
export type { Verdict } from './compiled-policy.ts';
export { createPolicyEngine, type PolicyConfig, policyVariables } from './config.ts';
export { type Drift, PolicyEngine, type PolicyEngineOptions } from './engine.ts';
export type { PolicyInput, PolicySubject } from './input.ts';
export { type PolicyRecordsOptions, policyRecords } from './records.ts';
export { type BundleSource, type Current, FolderSource, ObjectStoreSource } from './source.ts';
