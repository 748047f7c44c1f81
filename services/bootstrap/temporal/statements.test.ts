import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { runsOutsideTransaction, splitStatements } from './statements.ts';

describe('splitStatements', () => {
  it('ends a statement at a semicolon and drops line comments', () => {
    assert.deepEqual(splitStatements('CREATE TABLE a (x INT); -- why; not\nDROP TABLE b;\n-- end\n'), [
      'CREATE TABLE a (x INT)',
      'DROP TABLE b',
    ]);
  });

  it('keeps a dollar-quoted body whole, comments and semicolons included', () => {
    const block = "DO LANGUAGE 'plpgsql' $$\nBEGIN\n  -- inside;\n  PERFORM 1;\nEND $$";
    assert.deepEqual(splitStatements(`${block};\nSELECT 1`), [block, 'SELECT 1']);
  });

  it('sees no end inside quotes: any text survives as a literal', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const statement = `INSERT INTO t VALUES ('${text.replaceAll("'", "''")}')`;
        assert.deepEqual(splitStatements(`${statement};${statement}`), [statement, statement]);
      }),
    );
  });
});

describe('runsOutsideTransaction', () => {
  it('is true for a concurrent index only', () => {
    assert.equal(runsOutsideTransaction('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (x)'), true);
    assert.equal(runsOutsideTransaction('CREATE INDEX i ON t (x)'), false);
    assert.equal(runsOutsideTransaction("INSERT INTO t VALUES ('CREATE INDEX CONCURRENTLY')"), false);
  });
});
