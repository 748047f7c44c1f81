import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { type Entrypoint, entrypoints } from '@somagent/policy/bundle.ts';
import type { CompiledPolicy, Verdict } from '@somagent/policy/compiled-policy.ts';
import { z } from 'zod';

/** What is needed of an event `verdict.decided`: the question as it was asked, and the answer. */
const recorded = z.object({
  type: z.literal('verdict.decided'),
  time: z.string(),
  data: z.object({
    allow: z.boolean(),
    rule: z.string(),
    revision: z.string().nullable(),
    input: z.looseObject({
      subject: z.looseObject({ tenant: z.string().nullable(), id: z.string(), kind: z.string() }),
      action: z.looseObject({ service: z.string(), route: z.string(), capability: z.string() }),
    }),
  }),
});

/** Somebody for whom the new bundle decides otherwise, and how often that was seen in the record. */
export interface ChangedVerdict {
  readonly subject: string;
  readonly action: string;
  readonly before: string;
  readonly after: string;
  readonly reasons: readonly string[];
  /** `granted`, `revoked`, or `rule` when only the deciding rule is another. */
  readonly effect: 'granted' | 'revoked' | 'rule';
  count: number;
}

/** What a record of verdicts says about a new bundle. */
export interface ReplayReport {
  readonly verdicts: number;
  /** Lines that are no recorded question: other events, verdicts that were decided before a policy was asked. */
  readonly skipped: number;
  readonly changes: readonly ChangedVerdict[];
}

/** Asks the new policy every recorded question again. @param file NDJSON of the topic `verdict.decisions`. */
export async function replay(file: string, policy: CompiledPolicy): Promise<ReplayReport> {
  const changes = new Map<string, ChangedVerdict>();
  let [verdicts, skipped] = [0, 0];
  for await (const line of createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === '') continue;
    const event = recorded.safeParse(parse(line));
    const entrypoint = event.success ? entrypointOf(event.data.data.rule) : undefined;
    if (!event.success || entrypoint === undefined) {
      skipped += 1;
      continue;
    }
    verdicts += 1;
    note(changes, event.data.data, policy.evaluate(entrypoint, event.data.data.input));
  }
  return { verdicts, skipped, changes: [...changes.values()].sort((a, b) => b.count - a.count) };
}

function note(
  changes: Map<string, ChangedVerdict>,
  { input, allow, rule }: z.output<typeof recorded>['data'],
  verdict: Verdict,
): void {
  if (verdict.allow === allow && verdict.rule === rule) return;
  const { subject, action } = input;
  const key = JSON.stringify([subject.tenant, subject.id, action.service, action.route, rule, verdict.rule]);
  const known = changes.get(key);
  if (known !== undefined) known.count += 1;
  else {
    changes.set(key, {
      subject: `${subject.kind} ${subject.tenant ?? 'platform'}/${subject.id}`,
      action: `${action.service} ${action.route} (${action.capability})`,
      before: rule,
      after: verdict.rule,
      reasons: verdict.reasons,
      effect: effectOf(allow, verdict),
      count: 1,
    });
  }
}

/**
 * The rule's id names the policy that was asked: `soma.gateway.allow_by_role` → `soma/gateway/verdict`. Other ids are of
 * refusals that came before a policy was asked.
 */
function entrypointOf(rule: string): Entrypoint | undefined {
  const [root, policy] = rule.split('.');
  return entrypoints.find((entrypoint) => entrypoint === `${root}/${policy}/verdict`);
}

function effectOf(before: boolean, { allow }: Verdict): ChangedVerdict['effect'] {
  if (before === allow) return 'rule';
  return allow ? 'granted' : 'revoked';
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
