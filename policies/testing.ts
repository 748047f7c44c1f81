import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FolderSource, PolicyEngine, type PolicyEngineOptions } from '@somagent/policy';
import { compileCorpus } from './bundle/corpus.ts';
import { folderShelf, publish } from './bundle/publish.ts';

/** The platform's own corpus, published under a key that lives as long as a test file. */
export interface TestPolicy {
  readonly folder: string;
  readonly publicKeyFile: string;
  readonly privateKey: KeyObject;
  /** An engine on the published bundle; the test stops it. */
  engine(options?: Partial<PolicyEngineOptions>): PolicyEngine;
  delete(): void;
}

/** Compiles, signs and publishes the corpus into a temporary folder. Takes half a second. */
export async function publishTestPolicy(): Promise<TestPolicy> {
  const folder = mkdtempSync(join(tmpdir(), 'policy-'));
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKeyFile = join(folder, 'public.pem');
  writeFileSync(publicKeyFile, publicKey.export({ type: 'spki', format: 'pem' }));
  await publish(compileCorpus(), privateKey, folderShelf(folder));
  return {
    folder,
    publicKeyFile,
    privateKey,
    engine: (options) => new PolicyEngine({ source: new FolderSource(folder), publicKeyFile, ...options }),
    delete: () => rmSync(folder, { recursive: true }),
  };
}
