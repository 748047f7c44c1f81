import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { waitFor } from '@somagent/bootstrap/wait.ts';
import { readEvent } from '@somagent/events';
import { Accounts } from '@somagent/identity/accounts.ts';
import { Halts } from '@somagent/identity/halts.ts';
import { Ledger, ownWork } from '@somagent/identity/ledger.ts';
import { Tenants } from '@somagent/identity/tenants.ts';
import { TestService } from '@somagent/identity/testing/service.ts';
import { ControlState, createLogger, type OutboxEvent } from '@somagent/kit';
import { FolderSource, PolicyEngine } from '@somagent/policy';
import { HaltSwitch } from './halt.ts';
import { StepPolicy } from './step-policy.ts';

const log = createLogger({ service: 'orchestrator', level: 'silent' });
const origin = ownWork('test');

describe('the kill switch, told by a real identity service', () => {
  let identity: TestService;
  let control: ControlState;
  let halts: Halts;
  let accounts: Accounts;
  let halting: HaltSwitch;
  const recorded: OutboxEvent[] = [];

  before(async () => {
    identity = await TestService.start();
    const { url } = await identity.replica();
    const tokenFile = await identity.workloadFile('orchestrator');
    control = new ControlState({ url, caFile: identity.caFile, tokenFile, log });
    const ledger = new Ledger(identity.database.database);
    [halts, accounts] = [new Halts(ledger), new Accounts(ledger, identity.database.database)];
    const tenants = new Tenants(ledger, identity.database.database);
    for (const tenant of ['acme', 'globex']) await tenants.put(origin, tenant, tenant);
    await accounts.put(origin, 'acme', {
      id: 'ada',
      kind: 'user',
      username: 'ada',
      email: null,
      roles: ['member'],
      teams: [],
    });
    halting = new HaltSwitch({ control, log, record: async (events) => void recorded.push(...events) });
    control.start();
    await until(() => control.ready, 'the control state is known');
    halting.start();
  });
  after(async () => {
    halting?.stop();
    await control?.stop();
    await identity?.stop();
  });

  const until = (condition: () => boolean, what: string) =>
    waitFor(
      { name: what, address: 'this test', fix: 'read its log' },
      async () => {
        if (!condition()) throw new Error('not yet');
      },
      { seconds: 10 },
    );

  /** Type, scope and number of a recorded event. */
  function saidIn(index: number) {
    const { type, data } = readEvent('audit.control', recorded[index]?.value);
    assert.ok(type === 'agents.halted' || type === 'agents.resumed');
    return [type, data.scope, data.sessions];
  }

  /** A generation that ends as soon as it is told to. */
  function run(tenant: string, subject = 'ada') {
    const running = halting.begin({ tenant, subject });
    const stopped = once(running.signal, 'abort').then(() => running.end());
    return { signal: running.signal, stopped, end: () => running.end() };
  }

  it('stops the generations of a tenant within a second, and of no other', async () => {
    const [first, second, other] = [run('acme'), run('acme', 'bob'), run('globex')];
    const pulled = performance.now();
    await halts.halt(origin, 'acme', 'test');
    await Promise.all([first.stopped, second.stopped]);
    const elapsed = performance.now() - pulled;
    assert.ok(elapsed < 1000, `it took ${elapsed} ms`);
    assert.equal(first.signal.reason, 'halted');
    assert.equal(other.signal.aborted, false);
    assert.equal(halting.reasonAgainst({ tenant: 'acme', subject: 'ada' }), 'halted');
    assert.equal(halting.reasonAgainst({ tenant: 'globex', subject: 'gil' }), undefined);
    await until(() => recorded.length === 1, 'the halt is on record');
    assert.equal(recorded[0]?.key, 'acme/halt');
    assert.deepEqual(saidIn(0), ['agents.halted', 'tenant', 2]);
    const late = halting.begin({ tenant: 'acme', subject: 'ada' });
    assert.equal(late.signal.aborted, true, 'one that begins between question and registration is stopped too');
    late.end();
    other.end();
  });

  it('lets work go on when the halt is undone, and says how many turns waited', async () => {
    assert.equal(halting.noteWaiting('acme', 'turn-1', true), true);
    assert.equal(halting.noteWaiting('acme', 'turn-1', true), false, 'the same wait is no news');
    await halts.resume(origin, 'acme', 'test');
    await until(() => recorded.length === 2, 'the end of the halt is on record');
    assert.deepEqual(saidIn(1), ['agents.resumed', 'tenant', 1]);
    assert.equal(halting.reasonAgainst({ tenant: 'acme', subject: 'ada' }), undefined);
    assert.equal(halting.noteWaiting('acme', 'turn-1', false), true);
  });

  it('stops everything when everything is halted', async () => {
    const runs = [run('acme'), run('globex', 'gil')];
    await halts.halt(origin, null, 'test');
    await Promise.all(runs.map(({ stopped }) => stopped));
    assert.equal(halting.running, 0);
    await halts.resume(origin, null, 'test');
    await until(() => halting.reasonAgainst({ tenant: 'globex', subject: 'gil' }) === undefined, 'work may go on');
  });

  it('stops the work on behalf of a user who is suspended, and of no colleague', async () => {
    const [mine, colleague] = [run('acme'), run('acme', 'bob')];
    await accounts.suspend(origin, 'acme', 'ada', 'test');
    await mine.stopped;
    assert.equal(mine.signal.reason, 'suspended');
    assert.equal(colleague.signal.aborted, false);
    colleague.end();
    await accounts.restore(origin, 'acme', 'ada', 'test');
    await until(() => control.suspended('acme', 'ada') === null, 'the suspension is undone');
  });

  it('asks the real policy before each step: allowed, halted, foreign workload, no bundle', async () => {
    const engine = identity.policy;
    const workload = 'system:serviceaccount:local-services:orchestrator';
    const step = {
      tenant: 'acme',
      sessionId: 's1',
      subject: 'ada',
      capability: 'model:generate',
      requestId: 'r1',
    } as const;
    const policyOf = (as = workload) => new StepPolicy({ engine, control, workload: as });
    const { verdict, event } = policyOf().decide(step);
    assert.deepEqual([verdict.allow, verdict.rule], [true, 'soma.orchestrator.allow_workload']);
    assert.equal(event.key, 'acme/r1');
    const bare = new PolicyEngine({ source: new FolderSource('nowhere'), publicKeyFile: 'nowhere' });
    const blind = new StepPolicy({ engine: bare, control, workload });
    assert.deepEqual([blind.decide(step).verdict.allow, blind.undecided], [false, true]);
    assert.equal(policyOf('system:serviceaccount:local-services:stranger').decide(step).verdict.allow, false);
    await halts.halt(origin, 'acme', 'test');
    await until(() => control.halted('acme'), 'the halt is known');
    assert.equal(policyOf().decide(step).verdict.rule, 'soma.orchestrator.deny_halted');
    await halts.resume(origin, 'acme', 'test');
    await until(() => !control.halted('acme'), 'the end of the halt is known');
    assert.equal(policyOf().decide(step).verdict.allow, true);
  });
});
