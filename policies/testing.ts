import { generateKeyPairSync } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FolderSource, PolicyEngine } from '@somagent/policy';
import { compileCorpus } from './bundle/corpus.ts';
import { folderShelf, publish } from './bundle/publish.ts';

/**
 * An engine on the platform's own corpus, compiled, signed and published below a folder of the test, under a key that
 * is kept nowhere. Takes half a second. The test stops it and deletes the folder.
 */
export async function startTestPolicy(folder: string): Promise<PolicyEngine> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const publicKeyFile = join(folder, 'policy.pub');
  await writeFile(publicKeyFile, publicKey.export({ type: 'spki', format: 'pem' }));
  await publish(compileCorpus(), privateKey, folderShelf(join(folder, 'policy')));
  const policy = new PolicyEngine({ source: new FolderSource(join(folder, 'policy')), publicKeyFile });
  await policy.start();
  await policy.check();
  return policy;
}
