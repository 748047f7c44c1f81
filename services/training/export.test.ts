import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { sql } from 'kysely';
import { Approvals } from './approvals.ts';
import type { Requester } from './database.ts';
import { approvedTurns, exportDataset, isHeldOut, TooLittleData } from './export.ts';
import { sha256 } from './lineage.ts';
import { startPlatform, type TestPlatform } from './testing/platform.ts';
import { putSessions } from './testing/sessions.ts';

const anna: Requester = {
  ...{
    id: 'anna',
    kind: 'user',
    client: 'somagent-cli',
    roles: ['tenant-admin'],
    teams: [],
    scopes: null,
    keyId: null,
  },
};

describe('what is exported, on real databases', () => {
  let platform: TestPlatform;
  let approvals: Approvals;
  let acme: string[];

  before(async () => {
    platform = await startPlatform();
    approvals = new Approvals(platform.db, platform.sessions);
    acme = await putSessions(platform, 'acme');
    await putSessions(platform, 'globex');
  });
  after(() => platform.stop());

  const turnsOf = (tenant: string) => approvedTurns(platform.db, platform.sessions, tenant);
  const folder = (name: string) => join(platform.folder, name);

  it('is nothing as long as nobody has approved anything', async () => {
    assert.deepEqual(await turnsOf('acme'), { turns: [], approvals: [] });
    await assert.rejects(exportDataset(folder('none'), 'acme', await turnsOf('acme')), TooLittleData);
  });

  it('is the completed turns of the approved sessions of that tenant, the same bytes each time', async () => {
    await approvals.approve('acme', anna, 'r-1', acme, 'of this test');
    await platform.owner.of('acme').updateTable('turn').set({ status: 'failed' }).where('number', '=', 6).execute();
    const found = await turnsOf('acme');
    assert.equal(found.turns.length, acme.length * 5);
    const first = await exportDataset(folder('first'), 'acme', found);
    const again = await exportDataset(folder('again'), 'acme', await turnsOf('acme'));
    assert.deepEqual(again, first);
    assert.deepEqual((await turnsOf('globex')).turns, []);
    const manifest = JSON.parse(first.manifest) as { files: Record<string, { sha256: string; lines: number }> };
    for (const [name, file] of Object.entries(manifest.files)) {
      assert.equal(sha256(await readFile(join(folder('first'), name))), file.sha256);
    }
    const approved = await readFile(join(folder('first'), 'approvals.jsonl'), 'utf8');
    assert.equal(approved.includes('"approvedBy":"anna"'), true);
  });

  it('holds whole sessions out: no session is on both sides', async () => {
    const sides = await Promise.all(
      ['train.jsonl', 'held-out.jsonl'].map(async (name) => {
        const lines = (await readFile(join(folder('first'), name), 'utf8')).trim().split('\n');
        return new Set(lines.map((line) => (JSON.parse(line) as { sessionId: string }).sessionId));
      }),
    );
    assert.deepEqual(
      [...(sides[0] ?? [])].filter((id) => isHeldOut(id) || sides[1]?.has(id)),
      [],
    );
    assert.equal((sides[0]?.size ?? 0) + (sides[1]?.size ?? 0), acme.length);
  });

  it('leaves out what was withdrawn', async () => {
    await approvals.withdraw('acme', anna, 'r-2', acme.slice(0, 1), 'of this test');
    assert.equal((await turnsOf('acme')).turns.length, (acme.length - 1) * 5);
  });

  it('can read nothing else of the sessions, and write nothing', async () => {
    const rows = platform.sessions.of('acme');
    for (const statement of [
      sql`select subject from session`,
      sql`select usage from turn`,
      sql`select data from session_event`,
      sql`update turn set answer = ''`,
      sql`delete from session`,
    ]) {
      await assert.rejects(statement.execute(rows), /permission denied/);
    }
  });
});
