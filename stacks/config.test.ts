import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { ConfigError, configKeys, parseConfig } from './config.ts';
import { stackConfiguration } from './runner/stack-files.ts';

const good = {
  registry: 'localhost:5000',
  regions: '["local"]',
  gatewayUrl: 'https://localhost:8443',
  identityUrl: 'https://localhost:8444',
  accountsUrl: 'https://localhost:8445',
  auditUrl: 'https://localhost:8446',
  memoryUrl: 'https://localhost:8447',
  analyticsUrl: 'https://localhost:8448',
  trainingUrl: 'https://localhost:8449',
  tenants: '["acme"]',
};

function message(values: Record<string, string>): string {
  try {
    parseConfig(values);
  } catch (error) {
    if (error instanceof ConfigError) return error.message;
    throw error;
  }
  return assert.fail('the configuration was accepted');
}

test('a good configuration is read, defaults filled in', () => {
  const config = parseConfig({ ...good, gatewayNodePort: '30443', identityNodePort: '0', context: '' });
  assert.equal(config.size, 'small');
  assert.equal(config.rayRenderer, 'pods');
  assert.deepEqual(config.regions, [
    {
      name: 'local',
      gatewayUrl: 'https://localhost:8443',
      identityUrl: 'https://localhost:8444',
      accountsUrl: 'https://localhost:8445',
      auditUrl: 'https://localhost:8446',
      memoryUrl: 'https://localhost:8447',
      analyticsUrl: 'https://localhost:8448',
      trainingUrl: 'https://localhost:8449',
      gatewayNodePort: 30443,
      identityNodePort: undefined,
      accountsNodePort: undefined,
      auditNodePort: undefined,
      memoryNodePort: undefined,
      analyticsNodePort: undefined,
      trainingNodePort: undefined,
    },
  ]);
});

test('the API servers are narrowed only where their addresses are named', () => {
  assert.equal(parseConfig({ ...good, apiServerCidrs: '' }).apiServerCidrs, undefined);
  const { apiServerCidrs } = parseConfig({ ...good, apiServerCidrs: '10.0.0.1/32,10.96.0.1/32' });
  assert.deepEqual(apiServerCidrs, ['10.0.0.1/32', '10.96.0.1/32']);
});

test('{region} stands for the name of each region', () => {
  const { regions } = parseConfig({
    ...good,
    regions: '["east","west"]',
    context: 'prod-{region}',
    gatewayUrl: 'https://gateway.{region}.example.com',
    identityUrl: 'https://identity.{region}.example.com',
    accountsUrl: 'https://accounts.{region}.example.com',
    auditUrl: 'https://audit.{region}.example.com',
    memoryUrl: 'https://memory.{region}.example.com',
    analyticsUrl: 'https://analytics.{region}.example.com',
    trainingUrl: 'https://training.{region}.example.com',
  });
  assert.deepEqual(
    regions.map(({ context, gatewayUrl }) => [context, gatewayUrl]),
    [
      ['prod-east', 'https://gateway.east.example.com'],
      ['prod-west', 'https://gateway.west.example.com'],
    ],
  );
});

test('every mistake names key, value, what is expected and the fix', () => {
  const table: [Record<string, string>, RegExp][] = [
    [
      { ...good, gatewayNodePrt: '30443' },
      /somagent:gatewayNodePrt is unknown; did you mean somagent:gatewayNodePort\?/,
    ],
    [{ ...good, colour: 'red' }, /somagent:colour is unknown; known are registry, regions/],
    [
      { ...good, gatewayNodePort: 'many' },
      /somagent:gatewayNodePort is 'many', but must be a number; mend it in Pulumi/,
    ],
    [{ ...good, gatewayNodePort: '80' }, /somagent:gatewayNodePort is '80', but must be a node port, 30000 to 32767/],
    [{ ...good, regions: 'local' }, /somagent:regions is 'local', but must be a list/],
    [{ ...good, regions: '[]' }, /somagent:regions is '\[\]', but must be a list of at least 1/],
    [{ ...good, regions: '["Local!"]' }, /somagent:regions is '\["Local!"\]', but must be a DNS label/],
    [{ ...good, size: 'huge' }, /somagent:size is 'huge', but must be one of 'small', 'medium', 'large'/],
    [{ ...good, gatewayUrl: 'http://x' }, /somagent:gatewayUrl is 'http:\/\/x', but must be an https URL/],
    [
      { ...good, apiServerCidrs: '10.0.0.1' },
      /somagent:apiServerCidrs is '10\.0\.0\.1', but must be CIDRs with commas/,
    ],
    [{ ...good, apiServerCidrs: '10.0.0.1/32, x' }, /somagent:apiServerCidrs is .* must be CIDRs with commas/],
    [{ ...good, probeClients: 'maybe' }, /somagent:probeClients is 'maybe', but must be a boolean/],
    [{ ...good, registry: 'https://x' }, /somagent:registry is 'https:\/\/x', but must be a registry without scheme/],
    [{ ...good, regions: '["a","b"]' }, /somagent:gatewayUrl is .* for all of a, b; put \{region\}/],
  ];
  for (const [values, expected] of table) assert.match(message(values), expected);
  const { registry, ...without } = good;
  assert.match(message(without), /somagent:registry is missing; set it: pulumi config set registry <value>/);
});

test('all problems are named at once', () => {
  const text = message({ ...good, size: 'huge', colour: 'red' });
  assert.match(text, /somagent:size/);
  assert.match(text, /somagent:colour/);
});

const root = join(import.meta.dirname, '..');

test('Pulumi.yaml declares exactly the keys that are read', () => {
  const project = parse(readFileSync(join(root, 'Pulumi.yaml'), 'utf8')) as { config: Record<string, unknown> };
  assert.deepEqual(Object.keys(project.config).toSorted(), configKeys.toSorted());
});

test('the three environments can be read', async () => {
  const regions: Record<string, readonly string[]> = {
    dev: ['local'],
    staging: ['eu-central', 'eu-west'],
    production: ['eu-central', 'us-east'],
  };
  for (const [stack, names] of Object.entries(regions)) {
    const values = await stackConfiguration(root, stack);
    const own = Object.fromEntries(Object.entries(values).map(([key, value]) => [key.replace('somagent:', ''), value]));
    const config = parseConfig(own);
    assert.deepEqual(
      config.regions.map(({ name }) => name),
      names,
    );
    assert.equal(config.rayRenderer, stack === 'dev' ? 'pods' : 'kuberay');
    assert.equal(config.kafkaRenderer, stack === 'dev' ? 'pods' : 'strimzi');
  }
});

test('an unknown stack is named with those that exist', async () => {
  await assert.rejects(stackConfiguration(root, 'prod'), /no stack 'prod' .*there are .*production/);
});
