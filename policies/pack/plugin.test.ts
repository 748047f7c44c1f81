import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, it } from 'node:test';
import { credentials } from '@grpc/grpc-js';
import { opaPath } from '../bundle/corpus.ts';

// The Pulumi CLI runs exactly this program with the folder of a pack, reads a port from it, and asks over gRPC.
const require = createRequire(import.meta.url);
const host = join(dirname(require.resolve('@pulumi/pulumi/package.json')), 'cmd', 'run-policy-pack');
const skip = existsSync(opaPath()) ? false : `${opaPath()} is not built: run make toolchain`;

const deployment = (change: object = {}) => ({
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: 'gateway', namespace: 'north-services' },
  spec: {
    template: {
      metadata: { labels: { app: 'gateway' } },
      spec: {
        securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
        containers: [
          {
            name: 'server',
            image: 'localhost:5000/somagent/gateway:1',
            resources: { requests: { cpu: '50m', memory: '64Mi' }, limits: { memory: '128Mi' } },
            securityContext: {
              allowPrivilegeEscalation: false,
              readOnlyRootFilesystem: true,
              capabilities: { drop: ['ALL'] },
            },
            ...change,
          },
        ],
      },
    },
  },
});

const guard = {
  apiVersion: 'networking.k8s.io/v1',
  kind: 'NetworkPolicy',
  metadata: { name: 'gateway', namespace: 'north-services' },
  spec: { podSelector: { matchLabels: { app: 'gateway' } } },
};

// biome-ignore lint/suspicious/noExplicitAny: Pulumi's generated messages have no types here
type Message = any;

describe('the policy pack as a plugin of the Pulumi CLI', { skip }, () => {
  const messages: Message = require('@pulumi/pulumi/proto/analyzer_pb.js');
  const { AnalyzerClient } = require('@pulumi/pulumi/proto/analyzer_grpc_pb.js');
  const { Struct } = require('google-protobuf/google/protobuf/struct_pb.js');
  let plugin: ChildProcess;
  let client: Message;

  before(async () => {
    plugin = spawn(process.execPath, [host, '127.0.0.1:1', import.meta.dirname], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: plugin.stdout as NodeJS.ReadableStream });
    for await (const line of lines) {
      client = new AnalyzerClient(`127.0.0.1:${line}`, credentials.createInsecure());
      break;
    }
  });

  after(async () => {
    client?.close();
    const ended = new Promise((done) => plugin.once('exit', done));
    plugin.kill();
    await ended;
  });

  const ask = (method: string, request: Message): Promise<string[]> =>
    new Promise((resolve, reject) => {
      client[method](request, (error: Error | null, response: Message) => {
        if (error) reject(error);
        else resolve(response.getDiagnosticsList().map((each: Message) => each.getMessage()));
      });
    });

  const analyze = (manifest: object) => {
    const request = new messages.AnalyzeRequest();
    request.setType('kubernetes:apps/v1:Deployment');
    request.setName('gateway');
    request.setUrn('urn:pulumi:dev::somagent::kubernetes:apps/v1:Deployment::gateway');
    request.setProperties(Struct.fromJavaScript(manifest));
    request.setOptions(new messages.AnalyzerResourceOptions());
    return ask('analyze', request);
  };

  const analyzeStack = (manifests: readonly { readonly kind: string; readonly apiVersion: string }[]) => {
    const request = new messages.AnalyzeStackRequest();
    for (const manifest of manifests) {
      const resource = new messages.AnalyzerResource();
      const type = `kubernetes:${manifest.apiVersion}:${manifest.kind}`;
      resource.setType(type);
      resource.setName(manifest.kind);
      resource.setUrn(`urn:pulumi:dev::somagent::${type}::${manifest.kind}`);
      resource.setProperties(Struct.fromJavaScript(manifest));
      resource.setOptions(new messages.AnalyzerResourceOptions());
      request.addResources(resource);
    }
    return ask('analyzeStack', request);
  };

  it('lets a good resource pass and refuses a bad one in the words of the rule', async () => {
    assert.deepEqual(await analyze(deployment()), []);
    const words = await analyze(deployment({ image: 'localhost:5000/somagent/gateway:latest' }));
    assert.equal(words.length, 1);
    assert.match(
      words[0] ?? '',
      /soma\.deploy\.deny_tag: Deployment gateway image \S+:latest of container server has no fixed tag/,
    );
  });

  it('refuses a stack in which a workload has no NetworkPolicy', async () => {
    assert.deepEqual(await analyzeStack([deployment(), guard]), []);
    const [words, ...more] = await analyzeStack([deployment()]);
    assert.match(
      words ?? '',
      /soma\.deploy\.deny_unguarded: Deployment gateway is selected by no NetworkPolicy of its own/,
    );
    assert.deepEqual(more, []);
  });
});
