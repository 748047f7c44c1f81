import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { endProcess, freePort } from '@somagent/bootstrap/testing/processes.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { fetchTrusting } from '@somagent/kit';

const service = fileURLToPath(new URL('../../slm/', import.meta.url));

/** The real model server in one process, with one slot. */
export interface TestSlm {
  /** Address of its API, ending in /v1. */
  readonly url: string;
  readonly tokenFile: string;
  readonly fetch: typeof fetch;
  /** Asks for an answer of about that many tokens; resolves at its end. */
  generate(tokens: number): Promise<number>;
  stop(): Promise<void>;
}

/** Starts the server with the bundled model and waits until it answers. */
export async function startSlm(): Promise<TestSlm> {
  const folder = await mkdtemp(join(tmpdir(), 'slm-'));
  const token = randomBytes(32).toString('hex');
  await writeFiles(folder, token);
  const run = (script: string, ...args: readonly string[]) =>
    execFileSync('sh', [script, ...args], {
      cwd: service,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  run('build-model.sh', join(folder, 'model.gguf'));
  const venv = run('scripts/venv.sh', 'slm-serve-venv', 'requirements-serve.txt', 'requirements-test.txt');
  const port = await freePort();
  const child = spawn(`${venv}/bin/python`, ['-m', 'somagent_slm.standalone'], {
    cwd: service,
    stdio: 'ignore',
    env: {
      ...{ PATH: process.env.PATH, PYTHONPATH: service, PYTHONDONTWRITEBYTECODE: '1', TMPDIR: folder },
      ...{ SLM_MODEL_PATH: join(folder, 'model.gguf'), SLM_API_KEY_FILE: join(folder, 'token'), SLM_TLS_DIR: folder },
      ...{ SLM_HOST: '127.0.0.1', SLM_PORT: String(port), SLM_SLOTS: '1', SLM_QUEUE: '64' },
    },
  });
  const url = `https://127.0.0.1:${port}/v1`;
  const trusting = fetchTrusting(join(folder, 'ca.crt'));
  const stop = async () => {
    await endProcess(child, 10_000);
    await rm(folder, { recursive: true, force: true });
  };
  const attempt = async () => {
    const { status } = await trusting(`https://127.0.0.1:${port}/healthz`);
    if (status !== 200) throw new Error(`answered ${status}`);
  };
  try {
    await waitFor({ name: 'slm', address: url, fix: 'start it by hand' }, attempt, { seconds: 90 });
  } catch (error) {
    await stop();
    throw error;
  }
  const generate = async (tokens: number) => {
    const messages = [{ role: 'user', content: 'Tell me about the platform.' }];
    const response = await trusting(`${url}/chat/completions`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'soma-tiny', messages, max_tokens: tokens, temperature: 1.5 }),
    });
    await response.arrayBuffer();
    return response.status;
  };
  return { url, tokenFile: join(folder, 'token'), fetch: trusting, generate, stop };
}

async function writeFiles(folder: string, token: string): Promise<void> {
  const authority = await createAuthority('test authority of the scaler');
  const leaf = await issueCertificate(authority, {
    commonName: 'slm',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate, token };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
}
