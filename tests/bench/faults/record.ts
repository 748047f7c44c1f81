import { loginAs, logout } from '../../attacks/world.ts';
import { address } from '../../support/session-api.ts';
import type { Attempt, Kind } from './load.ts';

/** Which event of the audit log says that something was done, and which of its fields names it. */
const witnesses: Readonly<Partial<Record<Kind, readonly [type: string, field: string]>>> = {
  open: ['session.opened', 'sessionId'],
  turn: ['turn.ended', 'turnId'],
  close: ['session.closed', 'sessionId'],
  key: ['api-key.created', 'keyId'],
  revoke: ['api-key.revoked', 'keyId'],
};

interface AuditEvent {
  readonly id: string;
  readonly type: string;
  readonly requestId: string | null;
  readonly data: Readonly<Record<string, unknown>>;
}

/** How the audit log stands to what was done. */
export interface Balance {
  /** Actions that a client was told are done. */
  readonly acknowledged: number;
  /** Of these, without their event. */
  readonly lost: readonly string[];
  /** Actions that are there more than once, acknowledged or not. */
  readonly twice: readonly string[];
  /** Ids of events that are in the log more than once. */
  readonly repeatedEvents: number;
  /** Answered requests, and those without their verdict. */
  readonly answered: number;
  readonly withoutVerdict: number;
  /** Entries that the log has in all. */
  readonly entries: number;
}

const succeeded = ({ status }: Attempt): boolean => status >= 200 && status < 300;

/** The whole log, as the operator exports it. */
async function exported(): Promise<AuditEvent[]> {
  const operator = await loginAs('operator-1');
  try {
    const url = `${address('SOMA_AUDIT_URL', 'auditUrl')}/v1/audit/export`;
    const response = await fetch(url, { headers: { authorization: `Bearer ${operator.access}` } });
    if (response.status !== 200) throw new Error(`the export answers ${response.status}`);
    const lines = (await response.text()).split('\n').filter((line) => line.includes('"leaf"'));
    return lines.map((line) => JSON.parse((JSON.parse(line) as { leaf: string }).leaf).event as AuditEvent);
  } finally {
    await logout(operator);
  }
}

const repeated = (names: readonly string[]): string[] => {
  const seen = new Set<string>();
  return names.filter((name) => seen.size === seen.add(name).size);
};

/** Compares what clients were told with what the audit log holds. */
export async function balanceOf(attempts: readonly Attempt[]): Promise<Balance> {
  const events = await exported();
  const fields = new Map(Object.values(witnesses).map(([type, field]) => [type, field]));
  const done = events.flatMap(({ type, data }) => {
    const field = fields.get(type);
    return field === undefined ? [] : [`${type} ${String(data[field])}`];
  });
  const recorded = new Set(done);
  const verdicts = new Set(events.flatMap(({ type, requestId }) => (type === 'verdict.decided' ? [requestId] : [])));
  const acknowledged = attempts.filter(succeeded).flatMap(({ kind, id }) => {
    const witness = witnesses[kind];
    return witness === undefined ? [] : [`${witness[0]} ${id}`];
  });
  const answered = attempts.filter(({ requestId }) => requestId !== null);
  return {
    acknowledged: acknowledged.length,
    lost: acknowledged.filter((name) => !recorded.has(name)),
    twice: repeated(done),
    repeatedEvents: repeated(events.map(({ id }) => id)).length,
    answered: answered.length,
    withoutVerdict: answered.filter(({ requestId }) => !verdicts.has(requestId)).length,
    entries: events.length,
  };
}
