import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { fetchTrusting } from '@somagent/kit';

const service = fileURLToPath(new URL('../../slm', import.meta.url));
const origin = 'https://127.0.0.1:8000';

/** What the model server says to a request. */
export interface Told {
  readonly status: number;
  // biome-ignore lint/suspicious/noExplicitAny: tests compare fields of every shape with literals
  readonly body: any;
}

/** The whole model server: head, router and replicas under Ray. */
export interface TestSlm {
  /** Asks for an answer of a few tokens, as a service does for the tenant. */
  ask(tenant: string | undefined, model?: string): Promise<Told>;
  /** Names of the models that the tenant is offered. */
  models(tenant: string | undefined): Promise<string[]>;
  /** A figure of /metrics; 0 as long as it is not there. */
  figure(name: string): Promise<number>;
  stop(): Promise<void>;
}

/** Where promoted models are: variables of the server without their prefix `SLM_PROMOTED_`. */
export type PromotedVariables = Readonly<Record<'URL' | 'CREDENTIALS_DIR' | 'CA_FILE' | 'KEY_FILE', string>>;

/** Starts it on the ports that it has in a pod: the caller has a network of its own. */
export async function startSlm(folder: string, model: string, promoted: PromotedVariables): Promise<TestSlm> {
  const authority = await createAuthority('test authority');
  const names = { commonName: 'slm', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
  const leaf = await issueCertificate(authority, { ...names, usages: ['server'] });
  const [key, rayToken] = [randomBytes(32).toString('base64url'), randomBytes(32).toString('base64url')];
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate, key, rayToken };
  await mkdir(folder);
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text, { mode: 0o600 });
  const packages = ['slm-serve-venv', 'requirements-serve.txt', 'requirements-test.txt'];
  const venv = execFileSync('sh', ['scripts/venv.sh', ...packages], { cwd: service, encoding: 'utf8' }).trim();
  const child = spawn(join(venv, 'bin/python'), ['-m', 'somagent_slm.head'], {
    cwd: service,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: {
      ...{ PATH: process.env.PATH, PYTHONPATH: service, PYTHONDONTWRITEBYTECODE: '1', TMPDIR: folder },
      ...{ SLM_MODEL_PATH: model, SLM_API_KEY_FILE: join(folder, 'key'), SLM_TLS_DIR: folder, SLM_HOST: '127.0.0.1' },
      // On a slow machine a slot may be long in coming; what is judged here is that nothing is lost.
      ...{
        SLM_QUEUE_DEADLINE_MS: '60000',
        RAY_AUTH_TOKEN_PATH: join(folder, 'rayToken'),
        RAY_TMPDIR: join(folder, 'r'),
      },
      ...Object.fromEntries(Object.entries(promoted).map(([name, value]) => [`SLM_PROMOTED_${name}`, value])),
      ...{ SLM_PROMOTED_POLL_MS: '300', SLM_PROMOTED_PLACES: '1', SLM_PROMOTED_IDLE_MS: '500' },
    },
  });
  const trusting = fetchTrusting(join(folder, 'ca.crt'));
  const send = (path: string, tenant: string | undefined, body?: object) =>
    trusting(`${origin}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: { authorization: `Bearer ${key}`, ...(tenant !== undefined && { 'x-soma-tenant': tenant }) },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  const healthy = async () => {
    const { status } = await trusting(`${origin}/healthz`);
    if (status !== 200) throw new Error(`status ${status}`);
  };
  await waitFor({ name: 'the model server', address: origin, fix: 'read its output' }, healthy, { seconds: 120 });
  return {
    ask: async (tenant, name = 'soma-tiny') => {
      const messages = [{ role: 'user', content: 'What is a tenant?' }];
      const response = await send('/v1/chat/completions', tenant, { model: name, messages, max_tokens: 8 });
      return { status: response.status, body: await response.json() };
    },
    models: async (tenant) => {
      const { data } = (await (await send('/v1/models', tenant)).json()) as { data: readonly { id: string }[] };
      return data.map(({ id }) => id);
    },
    figure: async (name) => {
      const lines = (await (await send('/metrics', undefined)).text()).split('\n');
      return Number(lines.find((line) => line.startsWith(`${name} `))?.slice(name.length + 1) ?? 0);
    },
    stop: () => end(child),
  };
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((done) => child.once('exit', done));
  child.kill('SIGTERM');
  await ended;
}
