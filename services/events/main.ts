import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { updateHistory } from './history.ts';
import { currentSchemas } from './json-schema.ts';

/**
 * Writes the schemas of the contracts to `schemas.json`, as a new version where one has changed. With `--unreleased`
 * the newest version is replaced: only before anybody could have written events of it.
 */
function main(args: readonly string[]): number {
  const file = new URL('schemas.json', import.meta.url);
  const { history, problems } = updateHistory(
    JSON.parse(readFileSync(file, 'utf8')),
    currentSchemas(),
    args.includes('--unreleased'),
  );
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) return 1;
  writeFileSync(file, `${JSON.stringify(history, null, 2)}\n`);
  execFileSync('npx', ['biome', 'format', '--write', file.pathname], { stdio: 'inherit' });
  return 0;
}

process.exitCode = main(process.argv.slice(2));
