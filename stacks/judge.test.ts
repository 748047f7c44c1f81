import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { projectName } from './config.ts';
import { judge, PolicyError } from './judge.ts';
import { program } from './program.ts';
import { plan, stackConfiguration } from './runner/index.ts';

const config = await stackConfiguration(join(import.meta.dirname, '..'), 'dev');
const planned = await plan(program, { project: projectName, stack: 'dev', config });
const registries = ['localhost:5000'];

test('what the program declares keeps every rule of the deploy policy', async () => {
  await judge(planned, registries);
});

test('an image of another registry is refused before anything is sent, in words', async () => {
  await assert.rejects(judge(planned, ['mirror.example.com']), (error: unknown) => {
    assert.ok(error instanceof PolicyError);
    assert.match(error.message, /Deployment local-services\/gateway: .*localhost:5000.* \(soma\.deploy\.\w+\)/);
    return true;
  });
});
