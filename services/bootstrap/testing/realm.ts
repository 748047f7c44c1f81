import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import KeycloakAdminClient from '@keycloak/keycloak-admin-client';
import type { RealmMode } from '../realm/changes.ts';
import { type Realm, realmSchema } from '../realm-types.ts';
import type { TestKeycloak } from './keycloak.ts';

const main = fileURLToPath(new URL('../main.ts', import.meta.url));

/** What one run of the realm command said. */
export interface RealmRunOutput {
  readonly code: number | null;
  /** Its log lines. */
  readonly lines: readonly Readonly<Record<string, unknown>>[];
  readonly text: string;
}

/** A realm of a test with the files that the Job would have mounted: generated secrets, one folder each. */
export class RealmFiles {
  readonly #keycloak: TestKeycloak;
  readonly #folder: string;
  readonly #secrets = new Map<string, string>();

  constructor(keycloak: TestKeycloak) {
    this.#keycloak = keycloak;
    this.#folder = join(keycloak.tlsDirectory, 'realm');
  }

  /** The generated secret of a client or a person. */
  secret(name: string): string {
    const known = this.#secrets.get(name) ?? randomBytes(24).toString('base64url');
    this.#secrets.set(name, known);
    return known;
  }

  /** Runs `node main.js realm` as the Job does. */
  async run(
    realm: Realm,
    mode: RealmMode = 'apply',
    env: Readonly<Record<string, string>> = {},
  ): Promise<RealmRunOutput> {
    const { clients, people } = realmSchema.parse(realm);
    await this.#credentials('admin', this.#keycloak.admin.username, this.#keycloak.admin.password);
    for (const { clientId } of clients) await this.#credentials(`clients/${clientId}`, clientId, this.secret(clientId));
    for (const { username } of people) await this.#credentials(`users/${username}`, username, this.secret(username));
    await writeFile(join(this.#folder, 'plan.json'), JSON.stringify(realm));
    return runMain('realm', {
      PLAN: join(this.#folder, 'plan.json'),
      KEYCLOAK_URL: this.#keycloak.url,
      KEYCLOAK_CA_FILE: this.#keycloak.caFile,
      ADMIN_DIR: join(this.#folder, 'admin'),
      CLIENTS_DIR: join(this.#folder, 'clients'),
      USERS_DIR: join(this.#folder, 'users'),
      MODE: mode,
      WAIT_SECONDS: '120',
      ...env,
    });
  }

  async #credentials(path: string, username: string, password: string): Promise<void> {
    const folder = join(this.#folder, path);
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'username'), username, { mode: 0o600 });
    await writeFile(join(folder, 'password'), password, { mode: 0o600 });
  }
}

function runMain(command: string, env: Readonly<Record<string, string>>): Promise<RealmRunOutput> {
  const child = spawn(process.execPath, [main, command], { env: { PATH: process.env.PATH, ...env } });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, text, lines: linesOf(text) }));
  });
}

function linesOf(text: string): Record<string, unknown>[] {
  const json = text.split('\n').filter((line) => line.startsWith('{'));
  return json.map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** The realm where no cluster issues tokens of pods: clients that are pods get a secret like the others. */
export const withSecrets = (realm: Realm): Realm => ({
  ...realm,
  clients: realm.clients.map(({ workload: _, ...client }) => client),
});

/** A client of the admin API, signed in. Its authority must be trusted by the process. */
export async function administrator({ url, admin }: TestKeycloak): Promise<KeycloakAdminClient> {
  const client = new KeycloakAdminClient({ baseUrl: url, realmName: 'master', timeout: 60_000 });
  await client.auth({ grantType: 'client_credentials', clientId: admin.username, clientSecret: admin.password });
  return client;
}
