export { Policy, type PolicyProps, policyBucket } from './policy.ts';
