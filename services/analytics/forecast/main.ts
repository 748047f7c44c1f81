/**
 * Back-tests the forecast and looks for planted anomalies, on the synthetic traces of a profile:
 * `node services/analytics/forecast/main.ts [profile] [seed]`. Ends with 1 below the marks.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { folds, horizon, measure } from './measure.ts';
import { readProfile } from './profile.ts';

const marks = { accuracy: 0.95, precision: 0.9, recall: 0.9 };
const local = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** A Python with exactly the pinned packages, made once. */
export const preparedPython = (): string => {
  const venv = execFileSync(local('../../slm/scripts/venv.sh'), [
    'analytics-forecast',
    local('../../../images/analytics/requirements.txt'),
  ]);
  return `${venv.toString().trim()}/bin/python`;
};

async function main([file = local('../profiles/weekly.json'), seed = '1']: readonly string[]): Promise<number> {
  const profile = await readProfile(file);
  const program = { python: preparedPython(), program: local('model.py') };
  const results = await measure(program, profile, Number(seed));
  console.log(`${profile.days} days by the hour, ${folds} origins, ${horizon} hours ahead, seed ${seed}`);
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  for (const { tenant, accuracy, precision, recall, planted } of results) {
    const figures = `accuracy ${percent(accuracy)} (WAPE ${percent(1 - accuracy)}), ${planted} planted hours:`;
    console.log(`${tenant.padEnd(10)} ${figures} precision ${percent(precision)}, recall ${percent(recall)}`);
  }
  const below = results.some(
    (each) => each.accuracy < marks.accuracy || each.precision < marks.precision || each.recall < marks.recall,
  );
  if (below) console.error(`below the marks: ${JSON.stringify(marks)}`);
  return below ? 1 : 0;
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
