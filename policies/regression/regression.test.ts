import assert from 'node:assert/strict';
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { CompiledPolicy } from '@somagent/policy/compiled-policy.ts';
import { compileCorpus, opaPath, stageCorpus } from '../bundle/corpus.ts';
import { mutantsOf } from './mutants.ts';
import { mutate } from './mutate.ts';
import { replay } from './replay.ts';
import { measureCoverage } from './run-tests.ts';

const skip = existsSync(opaPath()) ? false : `${opaPath()} is not built: run make toolchain`;

describe('the regression of policies', { skip }, () => {
  let folder: string;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'regression-'));
  });

  after(() => rmSync(folder, { recursive: true }));

  /** A copy of the corpus with its tests, changed. */
  const changed = (change: (copy: string) => void): string => {
    const copy = join(folder, `copy-${Math.random()}`);
    const staged = stageCorpus(undefined, { tests: true });
    cpSync(staged, copy, { recursive: true });
    rmSync(staged, { recursive: true });
    change(copy);
    return copy;
  };

  it('reaches every line of the rules, and names the lines that a missing test leaves', async () => {
    assert.deepEqual(await measureCoverage(), { percent: 100, missed: {} });
    const without = changed((copy) => rmSync(join(copy, 'training/training_test.rego')));
    const { percent, missed } = await measureCoverage(without);
    assert.ok(percent < 100);
    assert.deepEqual(Object.keys(missed), ['training/training.rego']);
  });

  it('fails when a rule is wrong', async () => {
    const wrong = changed((copy) => {
      const file = join(copy, 'training/training.rego');
      writeFileSync(
        file,
        readFileSync(file, 'utf8').replace('input.subject.kind != "user"', 'input.subject.kind == "user"'),
      );
    });
    await assert.rejects(measureCoverage(wrong), /opa test failed:[\s\S]*training_test/);
  });

  // The whole set takes minutes: `node policies/main.ts mutate`.
  it('kills at least 95 % of a sample of the mutants', async () => {
    const report = await mutate({ files: ['training/training.rego', 'gateway/gateway.rego'], every: 9 });
    assert.ok(report.killed >= 10, `${report.killed} killed`);
    assert.ok(report.score >= 95, `${report.score} %: ${JSON.stringify(report.survivors)}`);
  });

  it('lets mutants live where the tests are weak', async () => {
    const weak = changed((copy) => {
      writeFileSync(join(copy, 'training/training_test.rego'), 'package soma.training_test\n\ntest_nothing if true\n');
    });
    const report = await mutate({ source: weak, files: ['training/training.rego'], every: 9 });
    assert.equal(report.killed, 0);
    assert.ok(report.survivors.length >= 5);
  });

  it('makes mutants of conditions, comparisons, constants, members and defaults', () => {
    const file = join('tools', 'tools.rego');
    const copy = changed(() => undefined);
    const made = mutantsOf(file, readFileSync(join(copy, file), 'utf8'), copy).map(
      ({ operator, before: from, after: to }) => `${operator}: ${from.split('\n')[0]} → ${to.split('\n')[0]}`,
    );
    for (const expected of [
      'negate condition: not tool → tool',
      'drop condition: lib.granted → true',
      'drop rule: lib.granted → false',
      'other comparison: != → ==',
      'other text: "tool:call" → "tool:call~"',
      'other function: lib.allow → lib.deny',
      'flip: false → true',
    ]) {
      assert.ok(made.includes(expected), expected);
    }
  });

  it('tells whom a new bundle touches', async () => {
    const question = {
      subject: {
        tenant: 'acme',
        id: 'a',
        kind: 'service-account',
        roles: ['agent'],
        teams: [],
        client: 'x',
        scopes: null,
      },
      action: { service: 'gateway', route: 'createTurn', method: 'POST', capability: 'session:turn', audit: 'write' },
      resource: { tenant: 'acme', type: 'session', id: 's' },
      relation: { required: null, held: null },
      control: { halted: false, suspended: null, revoked: false, training: 'locked' },
      context: { time: '2026-01-01T00:00:00.000Z', requestId: 'r' },
    };
    const event = (allow: boolean, rule: string, input: object | null) =>
      JSON.stringify({
        type: 'verdict.decided',
        time: '2026-01-01T00:00:00.000Z',
        data: { allow, rule, revision: 'ab', input },
      });
    const allowed = event(true, 'soma.gateway.allow_by_role', question);
    const lines = [
      allowed,
      allowed,
      event(false, 'authentication.no_token', null),
      'no JSON',
      '',
      JSON.stringify({ type: 'other' }),
    ];
    const log = join(folder, 'verdicts.ndjson');
    writeFileSync(log, lines.join('\n'));

    const same = await replay(log, await CompiledPolicy.of(compileCorpus()));
    assert.deepEqual(same, { verdicts: 2, skipped: 3, changes: [] });

    const strict = changed((copy) => {
      const file = join(copy, 'facts/data.json');
      const facts = JSON.parse(readFileSync(file, 'utf8'));
      facts.roles.agent = [];
      writeFileSync(file, JSON.stringify(facts));
    });
    const { changes } = await replay(log, await CompiledPolicy.of(compileCorpus(strict)));
    assert.deepEqual(changes, [
      {
        subject: 'service-account acme/a',
        action: 'gateway createTurn (session:turn)',
        before: 'soma.gateway.allow_by_role',
        after: 'soma.gateway.deny_by_default',
        reasons: ['no role of the subject has the capability'],
        effect: 'revoked',
        count: 2,
      },
    ]);
  });
});
