import { createHash } from 'node:crypto';
import { readFileSync, renameSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { run } from '../command.ts';
import { versions } from '../versions.ts';
import type { Stage } from './stage.ts';

/** Unpacks Keycloak's distribution, fetched by Maven and checked against the pinned digest. Needs mvn and unzip. */
export async function stageKeycloak({ folder, log }: Stage): Promise<void> {
  const artifact = `org.keycloak:keycloak-quarkus-dist:${versions.keycloak}:zip`;
  const zip = join(folder, `keycloak-quarkus-dist-${versions.keycloak}.zip`);
  await mkdir(folder, { recursive: true });
  await run('mvn', ['-q', '-B', 'dependency:get', `-Dartifact=${artifact}`, '-Dtransitive=false'], { log });
  await run('mvn', ['-q', '-B', 'dependency:copy', `-Dartifact=${artifact}`, `-DoutputDirectory=${folder}`], {
    log,
    cwd: folder,
  });
  const digest = createHash('sha256').update(readFileSync(zip)).digest('hex');
  if (digest !== versions.keycloakSha256) {
    throw new Error(`${artifact}: SHA-256 is ${digest}, pinned is ${versions.keycloakSha256}; see images/versions.ts`);
  }
  await run('unzip', ['-q', zip, '-d', folder], { log });
  await run('rm', [zip], { log });
  renameSync(join(folder, `keycloak-${versions.keycloak}`), join(folder, 'keycloak'));
}
