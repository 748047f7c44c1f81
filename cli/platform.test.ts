import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { downSteps, runSteps, statusSteps, upSteps } from './platform.ts';

const root = join(import.meta.dirname, '..');
const programs = (steps: ReturnType<typeof upSteps>) => steps.map(({ program }) => program.join(' '));

describe('steps', () => {
  it('bring up the local cluster, the images and the stack', () => {
    assert.deepEqual(programs(upSteps({ stack: 'dev' })), [
      'cluster/main.ts up',
      'images/main.ts build',
      'images/main.ts push',
      'stacks/main.ts apply --stack dev',
    ]);
  });

  it('touch neither cluster nor images where another cluster is given', () => {
    const options = { stack: 'staging', kubeconfig: 'k', context: 'c' };
    assert.deepEqual(programs(upSteps(options)), ['stacks/main.ts apply --stack staging --kubeconfig k --context c']);
    assert.deepEqual(programs(downSteps(options)), [
      'stacks/main.ts destroy --stack staging --kubeconfig k --context c',
    ]);
    assert.deepEqual(statusSteps(options), []);
  });

  it('are programs of this repository', () => {
    for (const { program } of [...upSteps({ stack: 'dev' }), ...downSteps({ stack: 'dev' })]) {
      assert.ok(existsSync(join(root, program[0])), program[0]);
    }
  });
});

describe('runSteps', () => {
  it('stops at the first step that fails and passes its exit code on', async () => {
    const failing = { what: 'images', program: ['images/main.ts', 'no-such-command'] as const };
    const never = { what: 'never', program: ['no/such/file.ts'] as const };
    await assert.rejects(runSteps(root, [failing, never], new AbortController().signal), {
      message: 'step images failed (exit code 1)',
      exitCode: 1,
    });
  });
});
