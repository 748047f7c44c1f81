import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fetchTrusting } from '@somagent/kit';
import { startProgress } from '../../../cluster/progress.ts';
import { buildToolchain, toolFamilies, toolPath } from '../../../cluster/toolchain.ts';
import { createAuthority, issueCertificate } from '../secrets/certificates.ts';
import { waitFor } from '../wait.ts';
import { endProcess, freePort } from './processes.ts';

/** A span as the collector understood it. */
export interface ReceivedSpan {
  readonly service: string;
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  /** Empty of the first of a trace. */
  readonly parentId: string;
  /** Values as the collector writes them, `Bool(true)` as `true`. */
  readonly attributes: Readonly<Record<string, string>>;
  readonly events: readonly string[];
  /** Trace ids that it is linked to. */
  readonly links: readonly string[];
}

/** The OpenTelemetry Collector, with TLS, of one test file. */
export interface TestCollector {
  readonly url: string;
  readonly caFile: string;
  /** Every span that it has taken so far. */
  spans(): readonly ReceivedSpan[];
  stop(): Promise<void>;
}

/** Starts the collector and waits until it takes spans. The first start of a machine builds it: some minutes. */
export async function startCollector(): Promise<TestCollector> {
  await buildToolchain(
    startProgress(),
    toolFamilies.filter(({ name }) => name === 'otel-collector'),
  );
  const folder = await mkdtemp(join(tmpdir(), 'otel-collector-'));
  const port = await freePort();
  await writeFiles(folder, port);
  const child = spawn(toolPath('otel-collector'), ['--config', `file:${join(folder, 'collector.yaml')}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let said = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const url = `https://127.0.0.1:${port}`;
  const caFile = join(folder, 'ca.crt');
  const stop = async () => {
    await endProcess(child);
    await rm(folder, { recursive: true, force: true });
  };
  const dependency = { name: 'the collector', address: url, fix: 'start it by hand and read what it says' };
  try {
    await waitFor(dependency, () => fetchTrusting(caFile)(url), { seconds: 30 });
    return { url, caFile, spans: () => readSpans(said), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function writeFiles(folder: string, port: number): Promise<void> {
  const authority = await createAuthority('SomaGent test');
  const request = { commonName: 'collector', dnsNames: ['localhost'], ipAddresses: ['127.0.0.1'] };
  const leaf = await issueCertificate(authority, { ...request, usages: ['server'] });
  await writeFile(join(folder, 'ca.crt'), authority.certificate);
  await writeFile(join(folder, 'tls.crt'), leaf.certificate);
  await writeFile(join(folder, 'tls.key'), leaf.key, { mode: 0o600 });
  const tls = { cert_file: join(folder, 'tls.crt'), key_file: join(folder, 'tls.key') };
  const configuration = {
    receivers: { otlp: { protocols: { http: { endpoint: `127.0.0.1:${port}`, tls } } } },
    exporters: { debug: { verbosity: 'detailed', use_internal_logger: false } },
    service: {
      pipelines: { traces: { receivers: ['otlp'], exporters: ['debug'] } },
      telemetry: { metrics: { level: 'none' }, logs: { level: 'error' } },
    },
  };
  // JSON is YAML.
  await writeFile(join(folder, 'collector.yaml'), JSON.stringify(configuration));
}

/** Reads what the collector's exporter `debug` says of each span. */
function readSpans(said: string): ReceivedSpan[] {
  return said.split(/^ResourceSpans #/m).flatMap((resource) => {
    const service = /-> service\.name: Str\((.*)\)/.exec(resource)?.[1] ?? '';
    const [, ...spans] = resource.split(/^Span #/m);
    return spans.map((text) => spanOf(service, text));
  });
}

function spanOf(service: string, text: string): ReceivedSpan {
  const field = (name: string) => new RegExp(`^ *${name} *: (.*)$`, 'm').exec(text)?.[1] ?? '';
  const [own = ''] = text.split(/^(?:Events|Links):$/m);
  const attributes = [...own.matchAll(/^ +-> ([\w.]+): \w+\((.*)\)$/gm)].map(([, name, value]) => [name, value]);
  return {
    service,
    name: field('Name'),
    traceId: field('Trace ID'),
    spanId: field('ID'),
    parentId: field('Parent ID'),
    attributes: Object.fromEntries(attributes),
    events: [...text.matchAll(/^ +-> (?:Name|reason): (.*)$/gm)].map(([, value = '']) => value),
    links: [...text.matchAll(/^ +-> Trace ID: (.*)$/gm)].map(([, value = '']) => value),
  };
}
