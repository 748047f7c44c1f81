import { CompiledPolicy } from '@somagent/policy/compiled-policy.ts';
import { compileCorpus } from '../bundle/corpus.ts';
import { replay } from './replay.ts';

/** Whom the policies of this working tree would touch, in words. @param file NDJSON of the topic `verdict.decisions`. */
export async function replayReport(file: string): Promise<string> {
  const { verdicts, skipped, changes } = await replay(file, await CompiledPolicy.of(compileCorpus()));
  const touched = changes.filter(({ effect }) => effect !== 'rule').length;
  const lines = changes.map(
    ({ effect, subject, action, before, after, reasons, count }) =>
      `${effect.padEnd(7)} ${count} × ${subject}: ${action}: ${before} → ${after} (${reasons.join('; ')})`,
  );
  const sum = `${verdicts} verdicts asked again, ${skipped} lines skipped, ${touched} would be decided otherwise`;
  return `${[...lines, sum].join('\n')}\n`;
}
