/** Faults of an installation, injected for real: each is reported with the object, its cause and its fix. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { after, describe, it } from 'node:test';
import { promisify } from 'node:util';
import { ApplyError } from '../stacks/runner/index.ts';
import { applySmall, destroySmall, type SmallProgram } from './support/small-program.ts';

const run = promisify(execFile);
const root = new URL('../', import.meta.url);
const used: string[] = [];

/** Applies a broken program and returns the one explanation it ends with. */
async function broken(props: Omit<SmallProgram, 'namespace'>) {
  const namespace = `fault-${randomBytes(3).toString('hex')}`;
  used.push(namespace);
  const error = await applySmall({ namespace, ...props }, 25).then(
    () => assert.fail('the broken program was reported as working'),
    (failure: unknown) => failure,
  );
  assert.ok(error instanceof ApplyError, String(error));
  assert.equal(error.stuck.length, 1);
  const [explanation] = error.stuck;
  assert.ok(explanation);
  assert.ok(explanation.fix.length > 20, `no fix: ${explanation.fix}`);
  return { namespace, ...explanation };
}

/** The text that the runner ends with for a stack whose configuration was overridden. */
async function refusedConfiguration(setting: string): Promise<string> {
  const args = ['stacks/main.ts', 'preview', '--stack', 'dev', '--set', setting];
  const outcome = await run(process.execPath, args, { cwd: root }).then(
    () => 'accepted',
    (error: { stderr: string }) => error.stderr,
  );
  assert.doesNotMatch(outcome, /\n\s+at .*\(.*\)/, 'a stack trace is no message for a person');
  return outcome;
}

describe('faults of an installation', () => {
  after(async () => {
    for (const namespace of used) await destroySmall(namespace);
  });

  it('names an image that the registry does not have', { timeout: 90_000 }, async () => {
    const fault = await broken({ image: 'localhost:5000/somagent/none:1' });
    assert.equal(fault.kind, 'image-missing');
    assert.match(fault.object, new RegExp(`${fault.namespace}/small`));
    assert.match(fault.cause, /localhost:5000\/somagent\/none:1/);
  });

  it('shows the last words of a container that crashes', { timeout: 90_000 }, async () => {
    const fault = await broken({ command: ['node', '-e', 'console.error("the disk is on fire"); process.exit(3)'] });
    assert.equal(fault.kind, 'crash-loop');
    assert.match(fault.cause, /the disk is on fire/);
  });

  it('says what no node can hold', { timeout: 90_000 }, async () => {
    const fault = await broken({ cpu: '1000' });
    assert.equal(fault.kind, 'unschedulable');
    assert.match(fault.cause, /cpu/i);
  });

  it('names a Secret that is not there', { timeout: 90_000 }, async () => {
    const fault = await broken({ secret: 'absent-secret' });
    assert.equal(fault.kind, 'configuration-missing');
    assert.match(fault.cause, /absent-secret/);
  });

  it('names a kind whose definition is not installed', { timeout: 90_000 }, async () => {
    const widget = { apiVersion: 'nowhere.example/v1', kind: 'Widget', metadata: { name: 'widget' } };
    const fault = await broken({ extra: [widget] });
    assert.equal(fault.kind, 'kind-absent');
    assert.match(fault.cause, /nowhere\.example\/v1.*Widget|Widget.*nowhere\.example\/v1/);
  });

  it('names the service that a pod waits for in vain', { timeout: 120_000 }, async () => {
    const script = `console.error('database: connect ECONNREFUSED postgres.absent.svc:5432'); process.exit(1)`;
    const fault = await broken({ command: ['node', '-e', script] });
    assert.match(fault.cause, /postgres\.absent/);
  });

  it('suggests the key that was meant', async () => {
    const text = await refusedConfiguration('regoins=["local"]');
    assert.match(text, /somagent:regoins is unknown; did you mean somagent:regions\?/);
  });

  it('says which type a value must have', async () => {
    const text = await refusedConfiguration('gatewayNodePort=many');
    assert.match(text, /somagent:gatewayNodePort is 'many', but must be/);
  });
});
