import assert from 'node:assert/strict';
import { execFile, execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { projectName } from './config.ts';
import { stackConfiguration } from './runner/stack-files.ts';

// The language host of the Pulumi CLI runs exactly this file with these arguments. The engine on the other end of its
// wire is played here: the protocol is the real one, over real gRPC, and what it sees is what a real engine would see.
const require = createRequire(import.meta.url);
const root = join(import.meta.dirname, '..');
const languageHost = join(dirname(require.resolve('@pulumi/pulumi/package.json')), 'cmd', 'run');

interface Registration {
  readonly type: string;
  readonly name: string;
  readonly custom: boolean;
  readonly version: string;
  readonly provider: string;
  readonly object: unknown;
}

/** The messages of Pulumi's protocol that are used, as its generated JavaScript has them. */
interface Message {
  [method: string]: (...values: unknown[]) => never;
}
interface Call {
  readonly request: Message;
}
type Answer = (error: null, message: unknown) => void;

async function engine() {
  const resources = require('@pulumi/pulumi/proto/resource_pb.js');
  const { ResourceMonitorService } = require('@pulumi/pulumi/proto/resource_grpc_pb.js');
  const engines = require('@pulumi/pulumi/proto/engine_pb.js');
  const { EngineService } = require('@pulumi/pulumi/proto/engine_grpc_pb.js');
  const { Empty } = require('google-protobuf/google/protobuf/empty_pb.js');
  const registrations: Registration[] = [];
  const logs: string[] = [];
  let outputs: unknown;
  const monitor = {
    supportsFeature: (_: Call, answer: Answer) => {
      const response = new resources.SupportsFeatureResponse();
      response.setHassupport(true);
      answer(null, response);
    },
    registerResource: ({ request }: Call, answer: Answer) => {
      const text = (method: string): string => request[method]?.() as unknown as string;
      const object = request.getObject?.() as unknown as { toJavaScript(): unknown };
      const registration = {
        type: text('getType'),
        name: text('getName'),
        custom: Boolean(text('getCustom')),
        version: text('getVersion'),
        provider: text('getProvider'),
        object: object.toJavaScript(),
      };
      registrations.push(registration);
      const response = new resources.RegisterResourceResponse();
      response.setUrn(`urn:pulumi:dev::${projectName}::${registration.type}::${registration.name}`);
      if (registration.custom) response.setId(registration.name);
      response.setObject(object);
      answer(null, response);
    },
    registerResourceOutputs: ({ request }: Call, answer: Answer) => {
      const urn = request.getUrn?.() as unknown as string;
      const values = request.getOutputs?.() as unknown as { toJavaScript(): unknown };
      if (urn.includes('pulumi:pulumi:Stack')) outputs = values.toJavaScript();
      answer(null, new Empty());
    },
    signalAndWaitForShutdown: (_: Call, answer: Answer) => answer(null, new Empty()),
  };
  const engineService = {
    log: ({ request }: Call, answer: Answer) => {
      logs.push(request.getMessage?.() as unknown as string);
      answer(null, new Empty());
    },
    setRootResource: (_: Call, answer: Answer) => answer(null, new engines.SetRootResourceResponse()),
    getRootResource: (_: Call, answer: Answer) => answer(null, new engines.GetRootResourceResponse()),
  };
  const server = new Server();
  server.addService(ResourceMonitorService, monitor as never);
  server.addService(EngineService, engineService as never);
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    address: `127.0.0.1:${port}`,
    registrations,
    logs,
    outputs: () => outputs,
    close: () => server.forceShutdown(),
  };
}

async function runUnder(node: string) {
  const played = await engine();
  const config = JSON.stringify(await stackConfiguration(root, 'dev'));
  const flags = {
    monitor: played.address,
    engine: played.address,
    project: projectName,
    stack: 'dev',
    pwd: join(root, 'stacks'),
    'root-directory': root,
    organization: 'organization',
    parallel: '16',
  };
  const env = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    PULUMI_CONFIG: config,
    PULUMI_CONFIG_SECRET_KEYS: '[]',
    PULUMI_NODEJS_TYPESCRIPT: 'false',
  };
  const args = [languageHost, ...Object.entries(flags).map(([flag, value]) => `--${flag}=${value}`), 'pulumi.js'];
  const result = await new Promise<{ error: Error | null; stderr: string }>((resolve) => {
    execFile(node, args, { cwd: join(root, 'stacks'), env }, (error, _, stderr) => resolve({ error, stderr }));
  });
  played.close();
  assert.equal(result.error, null, `${result.stderr}\n${played.logs.join('\n')}`);
  return played;
}

/** Every Node on the path that the program must run under: the one of this test, and an older one of the machine. */
function runtimes(): string[] {
  const path = (process.env.PATH ?? '').split(':').filter((folder) => !folder.includes('node_modules'));
  const find = () =>
    execFileSync('sh', ['-c', 'command -v node'], { env: { PATH: path.join(':') }, encoding: 'utf8' }).trim();
  try {
    return [...new Set([process.execPath, find()])];
  } catch {
    return [process.execPath];
  }
}

for (const node of runtimes()) {
  const version = execFileSync(node, ['--version'], { encoding: 'utf8' }).trim();
  test(`the program runs under Pulumi's language host on Node ${version}`, async () => {
    const { registrations, outputs } = await runUnder(node);
    const objects = registrations.filter(({ type, custom }) => custom && type.startsWith('kubernetes:'));
    assert.equal(objects.length > 50, true, `${objects.length} objects`);
    for (const { type, name, version: plugin, provider } of objects) {
      assert.match(type, /^kubernetes:(core|[a-z0-9.]+)\/v\d\w*:[A-Z]\w+$/, name);
      assert.equal(plugin, '4.34.2', name);
      assert.match(provider, /pulumi:providers:kubernetes::local::local$/, name);
    }
    const provider = registrations.find(({ type }) => type === 'pulumi:providers:kubernetes');
    assert.equal(provider?.version, '4.34.2');
    assert.deepEqual(provider?.object, { enableServerSideApply: 'true', enableConfigMapMutable: 'true' });
    assert.equal((outputs() as { gatewayUrl: string }).gatewayUrl, 'https://localhost:8443');
  });
}

test('a second run asks the engine for exactly the same', async () => {
  const byName = ({ type, name }: Registration) => `${type} ${name}`;
  const sorted = (registrations: readonly Registration[]) =>
    registrations.toSorted((a, b) => byName(a).localeCompare(byName(b)));
  const [first, second] = [await runUnder(process.execPath), await runUnder(process.execPath)];
  assert.deepEqual(sorted(second.registrations), sorted(first.registrations));
});
