import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ConfigError } from '@somagent/kit';
import { parseModels, readModelsFile } from './config.ts';

const slm = { kind: 'slm', url: 'https://slm:8000/v1', tokenFile: '/token', caFile: '/ca.crt' };
const chain = [{ provider: 'slm', model: 'soma-tiny' }];
const good = { providers: { slm }, models: { 'soma-tiny': { chain } } };

function problemsOf(content: unknown): readonly string[] {
  try {
    parseModels(content);
    return [];
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
}

test('one provider and one model are enough; the rest has values', () => {
  const { providers, models } = parseModels(good);
  assert.equal(providers.slm?.timeouts.firstTokenMs, 30_000);
  assert.equal(providers.slm?.breaker.threshold, 0.5);
  assert.equal(models['soma-tiny']?.attempts, 4);
  assert.equal(models['soma-tiny']?.hedge, undefined);
});

const wrong: readonly (readonly [string, unknown, string])[] = [
  [
    'an unencrypted address',
    { ...good, providers: { slm: { ...slm, url: 'http://slm:8000/v1' } } },
    'models: providers.slm.url is "http://slm:8000/v1": Invalid URL. Set it to the https address of the endpoint.',
  ],
  [
    'a missing token',
    { ...good, providers: { slm: { ...slm, tokenFile: undefined } } },
    'models: providers.slm.tokenFile is not set. Set it to the file with the token of this workload.',
  ],
  [
    'a misspelt field',
    { ...good, providers: { slm: { ...slm, priices: {} } } },
    'models: providers.slm.priices is unknown. Remove it or mend its spelling.',
  ],
  [
    'an unknown kind',
    { ...good, providers: { slm: { ...slm, kind: 'bedrock' } } },
    'models: providers.slm.kind is "bedrock": use slm, openai or anthropic.',
  ],
  [
    'a provider that is not there',
    { ...good, models: { m: { chain: [{ provider: 'other', model: 'm' }] } } },
    'models: models.m.chain.0.provider is "other". Set it to one of: slm.',
  ],
  [
    'a name that every object has',
    { ...good, models: { m: { chain: [{ provider: 'constructor', model: 'm' }] } } },
    'models: models.m.chain.0.provider is "constructor". Set it to one of: slm.',
  ],
  [
    'too large a share of hedges',
    { ...good, models: { m: { chain, hedge: { share: 0.9 } } } },
    'models: models.m.hedge.share is 0.9: Too big: expected number to be <=0.5. Set it to the share of requests that may be hedged, more than 0, at most 0.5.',
  ],
  [
    'a provider that is paid for, without a price',
    {
      providers: { paid: { kind: 'openai', url: 'https://api.example/v1', credentialFile: '/key' } },
      models: { m: { chain: [{ provider: 'paid', model: 'large' }] } },
    },
    'models: providers.paid.prices.large is not set. Set it to its prices; 0 where it costs nothing.',
  ],
  [
    'a fallback between two models of embeddings',
    { ...good, models: { e: { kind: 'embedding', chain: [...chain, { provider: 'slm', model: 'other' }] } } },
    "models: models.e.chain names several models. Set it to one: vectors of two can't be compared.",
  ],
];

for (const [what, content, message] of wrong) {
  test(`${what} is refused: field, value, fix`, () => assert.deepEqual(problemsOf(content), [message]));
}

test('every wrong field is named at once', () => {
  assert.equal(problemsOf({ providers: { slm: { kind: 'slm', url: 'x' } }, models: { m: { chain: [] } } }).length, 3);
});

test('a file that is no JSON, or not there, is named', () => {
  const folder = mkdtempSync(join(tmpdir(), 'models-'));
  const path = join(folder, 'models.json');
  assert.throws(() => readModelsFile(path), { name: 'ConfigError', message: /models\.json cannot be read.*ENOENT/s });
  writeFileSync(path, '{');
  assert.throws(() => readModelsFile(path), { name: 'ConfigError', message: /models\.json cannot be read/ });
  writeFileSync(path, JSON.stringify(good));
  assert.deepEqual(Object.keys(readModelsFile(path).models), ['soma-tiny']);
  rmSync(folder, { recursive: true });
});
