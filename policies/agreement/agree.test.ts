import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { opaPath, stageCorpus } from '../bundle/corpus.ts';
import { agree } from './agree.ts';

const skip = existsSync(opaPath()) ? false : `${opaPath()} is not built: run make toolchain`;

// The whole number takes minutes: `node policies/main.ts agree`.
describe('OPA server, wasm and policy pack', { skip }, () => {
  it('agree, on questions of which neither verdict is rare', async () => {
    const report = await agree({ questions: 1500, deploy: 0.6, seed: Math.floor(Math.random() * 2 ** 32) });
    assert.deepEqual(report.disagreements, []);
    assert.equal(report.questions, 1500);
    assert.ok(report.byPack > 700, `${report.byPack} to all three`);
    assert.ok(report.allowed > 375 && report.allowed < 1125, `${report.allowed} allowed`);
    assert.ok(Object.keys(report.rules).length > 50, `${Object.keys(report.rules).length} rules`);
  });

  it('are seen to disagree when one of them has another rule', async () => {
    const other = stageCorpus();
    try {
      const file = join(other, 'deploy/deploy.rego');
      writeFileSync(
        file,
        readFileSync(file, 'utf8').replace(
          '"resources", part, amount], null) == null',
          '"resources", part, amount], null) == 0',
        ),
      );
      const { disagreements } = await agree({ questions: 500, deploy: 1, seed: 5, serverCorpus: other });
      assert.ok(disagreements.length > 0);
      const [first] = disagreements;
      assert.notDeepEqual(first?.answers.server, first?.answers.wasm);
      assert.deepEqual(first?.answers.pack, first?.answers.wasm);
    } finally {
      rmSync(other, { recursive: true });
    }
  });
});
