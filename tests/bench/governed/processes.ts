/** Servers that are not ours, and what a process has used. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { fetchTrusting } from '@somagent/kit';
import { opaPath } from '@somagent/policies/bundle/corpus.ts';

const run = promisify(execFile);
const slm = join(import.meta.dirname, '..', '..', '..', 'services', 'slm');
const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'somagent');
const liteLlm = '1.106.2';

/** A server in a process of its own. */
export interface Process {
  readonly url: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** A port that nobody listens on. */
async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done));
  const address = probe.address();
  await new Promise((done) => probe.close(done));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

function processOf(url: string, child: ChildProcess): Process {
  return {
    url,
    pid: child.pid ?? 0,
    stop: async () => {
      const ended = once(child, 'exit');
      child.kill();
      await ended;
    },
  };
}

/** OPA's own server with the sources of the corpus. */
export async function startOpa(sources: string): Promise<Process> {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const options = ['--server', '--skip-version-check', '--log-level=error', '--addr', `127.0.0.1:${port}`];
  const child = spawn(opaPath(), ['run', ...options, sources], { stdio: 'ignore' });
  await healthy('OPA', () => fetch(`${url}/health`), child);
  return processOf(url, child);
}

async function healthy(name: string, ask: () => Promise<Response>, child: ChildProcess): Promise<void> {
  const dependency = { name, address: 'loopback', fix: 'run it by hand' };
  const probe = async () => {
    const response = await ask();
    if (!response.ok) throw new Error(`status ${response.status}`);
  };
  try {
    await waitFor(dependency, probe, { seconds: 180 });
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}

/** What the model servers need: a folder with tls.crt, tls.key and ca.crt, and a key for the model. */
export interface ModelFiles {
  readonly folder: string;
  readonly tlsDirectory: string;
  readonly key: string;
}

/** The platform's own model behind its OpenAI-compatible API, in one process. */
export async function startModel({ folder, tlsDirectory, key }: ModelFiles): Promise<Process> {
  const { stdout } = await run(join(slm, 'scripts', 'venv.sh'), ['slm-serve-venv', 'requirements-serve.txt'], {
    cwd: slm,
  });
  const model = join(folder, 'model.gguf');
  await run(join(slm, 'build-model.sh'), [model], { cwd: slm });
  const port = await freePort();
  await writeFile(join(folder, 'model-key'), key, { mode: 0o600 });
  const child = spawn(join(stdout.trim(), 'bin', 'python'), ['-m', 'somagent_slm.standalone'], {
    cwd: slm,
    stdio: 'ignore',
    env: {
      ...process.env,
      SLM_MODEL_PATH: model,
      SLM_API_KEY_FILE: join(folder, 'model-key'),
      SLM_TLS_DIR: tlsDirectory,
      SLM_HOST: '127.0.0.1',
      SLM_PORT: String(port),
    },
  });
  const url = `https://127.0.0.1:${port}`;
  const trusting = fetchTrusting(join(tlsDirectory, 'ca.crt'));
  await healthy(
    'the model',
    () => trusting(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } }),
    child,
  );
  return processOf(url, child);
}

/** LiteLLM's proxy from PyPI in front of a model, one worker, over HTTPS, with a master key. */
export async function startLiteLlm({ folder, tlsDirectory, key }: ModelFiles, model: string): Promise<Process> {
  const program = await installLiteLlm();
  const port = await freePort();
  const ca = join(tlsDirectory, 'ca.crt');
  const settings = {
    model_list: [
      {
        model_name: 'soma-tiny',
        litellm_params: { model: 'openai/soma-tiny', api_base: `${model}/v1`, api_key: key },
      },
    ],
    litellm_settings: { telemetry: false, ssl_verify: ca },
    general_settings: { master_key: key },
  };
  const config = join(folder, 'litellm.yaml');
  // JSON is YAML.
  await writeFile(config, JSON.stringify(settings), { mode: 0o600 });
  const tls = [
    '--ssl_keyfile_path',
    join(tlsDirectory, 'tls.key'),
    '--ssl_certfile_path',
    join(tlsDirectory, 'tls.crt'),
  ];
  const where = ['--host', '127.0.0.1', '--port', String(port), '--num_workers', '1', '--telemetry', 'False'];
  const child = spawn(program, ['--config', config, ...where, ...tls], {
    stdio: 'ignore',
    env: {
      ...process.env,
      SSL_CERT_FILE: ca,
      LITELLM_LOG: 'ERROR',
      LITELLM_MODE: 'PRODUCTION',
      LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    },
  });
  const url = `https://127.0.0.1:${port}`;
  const trusting = fetchTrusting(ca);
  await healthy('LiteLLM', () => trusting(`${url}/health/liveliness`), child);
  return processOf(url, child);
}

/** @returns the path of its program, in a virtual environment below the user's cache. */
async function installLiteLlm(): Promise<string> {
  const folder = join(cache, 'litellm-venv');
  await mkdir(cache, { recursive: true });
  await run('python3', ['-m', 'venv', folder]);
  await run(join(folder, 'bin', 'pip'), ['install', '--quiet', `litellm[proxy]==${liteLlm}`], { maxBuffer: 1 << 24 });
  return join(folder, 'bin', 'litellm');
}

const ticksPerSecond = 100;

/** User and system time of a process and all its threads, microseconds. Source: proc_pid_stat(5) */
export async function cpuOf(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
  return ((Number(fields[11]) + Number(fields[12])) / ticksPerSecond) * 1e6;
}

/** Processes of a program below this one, such as `openfga`. */
export function pidsOf(program: string): number[] {
  const parents = new Map<number, number>();
  const found: number[] = [];
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      const [head = '', rest = ''] = readFileSync(`/proc/${entry}/stat`, 'utf8').split(') ');
      parents.set(Number(entry), Number(rest.split(' ')[1]));
      if (head.slice(head.indexOf('(') + 1) === program) found.push(Number(entry));
    } catch {
      // It has ended meanwhile.
    }
  }
  const isOurs = (pid: number | undefined): boolean =>
    pid !== undefined && pid > 1 && (pid === process.pid || isOurs(parents.get(pid)));
  return found.filter(isOurs);
}
