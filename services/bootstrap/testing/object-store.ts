import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetchTrusting } from '@somagent/kit';
import type { ObjectStoreOptions } from '@somagent/kit/object-store.ts';
import { toolPath } from '../../../cluster/toolchain.ts';
import { createAuthority, issueCertificate } from '../secrets/certificates.ts';
import { waitFor } from '../wait.ts';
import { freePort } from './processes.ts';

/** A real object store with TLS for one test file. */
export interface TestObjectStore {
  readonly url: string;
  readonly caFile: string;
  /** How its administrator is reached. */
  readonly admin: ObjectStoreOptions;
  /** Folder with one folder of credentials per user. */
  readonly usersDir: string;
  /** How a user reaches a bucket. */
  bucket(name: string, user: string): ObjectStoreOptions;
  /** Makes a secret key for a user. */
  credentials(user: string): Promise<void>;
  /** Ends the server; what it stored stays. */
  halt(): Promise<void>;
  /** Starts it again on the same port. */
  resume(): Promise<void>;
  stop(): Promise<void>;
}

/** Path of its program, built by the toolchain. */
export const objectStoreProgram = (): string => toolPath('versitygw');

async function writeCredentials(folder: string, username: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'username'), username);
  await writeFile(join(folder, 'password'), randomBytes(32).toString('base64url'), { mode: 0o600 });
}

/** Starts the server and waits until it answers. */
export async function startObjectStore(): Promise<TestObjectStore> {
  const folder = await mkdtemp(join(tmpdir(), 'object-store-'));
  const usersDir = join(folder, 'users');
  const adminDir = join(folder, 'admin');
  const caFile = join(folder, 'ca.crt');
  await writeCredentials(adminDir, 'object-store');
  await writeCertificates(folder, caFile);
  for (const name of ['data', 'meta', 'iam']) await mkdir(join(folder, name));
  const port = await freePort();
  const url = `https://127.0.0.1:${port}`;
  const secret = await readFile(join(adminDir, 'password'), 'utf8');
  const server = new Server(folder, port, secret);
  const store: TestObjectStore = {
    url,
    caFile,
    admin: { url, credentialsDir: adminDir, caFile },
    usersDir,
    bucket: (name, user) => ({ url: `${url}/${name}`, credentialsDir: join(usersDir, user), caFile }),
    credentials: (user) => writeCredentials(join(usersDir, user), user),
    halt: () => server.end(),
    resume: () => server.start(),
    stop: async () => {
      await server.end();
      await rm(folder, { recursive: true, force: true });
    },
  };
  try {
    await server.start();
    return store;
  } catch (error) {
    await store.stop();
    throw error;
  }
}

async function writeCertificates(folder: string, caFile: string): Promise<void> {
  const authority = await createAuthority('SomaGent test');
  const request = { commonName: 'object-store', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
  const leaf = await issueCertificate(authority, { ...request, usages: ['server'] });
  await writeFile(caFile, authority.certificate);
  await writeFile(join(folder, 'tls.crt'), leaf.certificate);
  await writeFile(join(folder, 'tls.key'), leaf.key, { mode: 0o600 });
}

class Server {
  readonly #folder: string;
  readonly #port: number;
  readonly #secret: string;
  #child: ChildProcess | undefined;

  constructor(folder: string, port: number, secret: string) {
    this.#folder = folder;
    this.#port = port;
    this.#secret = secret;
  }

  async start(): Promise<void> {
    const at = (name: string) => join(this.#folder, name);
    const tls = ['--cert', at('tls.crt'), '--key', at('tls.key')];
    const flags = ['--port', `127.0.0.1:${this.#port}`, ...tls, '--iam-dir', at('iam'), '--iam-cache-disable'];
    const args = [
      ...flags,
      '--health',
      '/healthz',
      '--quiet',
      '--keep-alive',
      'posix',
      '--sidecar',
      at('meta'),
      at('data'),
    ];
    const env = { PATH: process.env.PATH ?? '', ROOT_ACCESS_KEY: 'object-store', ROOT_SECRET_KEY: this.#secret };
    this.#child = spawn(objectStoreProgram(), args, { stdio: 'ignore', env });
    const dependency = { name: 'versitygw', address: `127.0.0.1:${this.#port}`, fix: 'start it by hand' };
    const get = fetchTrusting(at('ca.crt'));
    const attempt = async () => {
      const response = await get(`https://127.0.0.1:${this.#port}/healthz`);
      if (response.status !== 200) throw new Error(`answered ${response.status}`);
    };
    await waitFor(dependency, attempt, { seconds: 30 });
  }

  async end(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill('SIGKILL');
    await ended;
  }
}
