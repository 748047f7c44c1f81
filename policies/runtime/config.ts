import { httpsUrl, text } from '@somagent/kit';
import { ObjectStoreBucket } from '@somagent/kit/object-store.ts';
import { PolicyEngine } from './engine.ts';
import { type PolicyRecordsOptions, policyRecords } from './records.ts';
import { ObjectStoreSource } from './source.ts';

/** The variables of a service that asks policies, for `readConfig` of the kit. */
export const policyVariables = {
  POLICY_URL: httpsUrl('the https address of the bucket with the policy bundles'),
  POLICY_CREDENTIALS_DIR: text('the folder with the read-only key of the object store: username and password'),
  POLICY_CA_FILE: text('the file with the authority of the object store'),
  POLICY_PUBLIC_KEY_FILE: text('the PEM file with the public keys that sign bundles'),
  POLICY_CACHE_DIR: text('a writable folder for the last good bundle').default('/var/cache/policy'),
};

/** Values of {@link policyVariables}. */
export type PolicyConfig = { readonly [Name in keyof typeof policyVariables]: string };

/** An engine on the object store, which records what becomes of the policy; call its `start()`. */
export function createPolicyEngine(config: PolicyConfig, records: PolicyRecordsOptions): PolicyEngine {
  const bucket = new ObjectStoreBucket({
    url: config.POLICY_URL,
    credentialsDir: config.POLICY_CREDENTIALS_DIR,
    caFile: config.POLICY_CA_FILE,
  });
  return new PolicyEngine({
    source: new ObjectStoreSource(bucket),
    publicKeyFile: config.POLICY_PUBLIC_KEY_FILE,
    cacheDir: config.POLICY_CACHE_DIR,
    ...policyRecords(records),
  });
}
