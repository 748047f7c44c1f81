import { createHash } from 'node:crypto';
import { isHeldOut } from '../export.ts';
import type { TestPlatform } from './platform.ts';

const facts = [
  ['the ticket queue', 'The ticket queue of the shop is watched by the night team, who answers within one hour.'],
  ['the return label', 'A return label is printed by the desk, and the parcel goes back to the shop within one week.'],
  ['the price list', 'The price list is written by the sales team, and a new one is sent to the desk each week.'],
  ['the blue store', 'The blue store is open from nine to five, and the keys of the store are with the night team.'],
  ['the garden plan', 'The garden plan is kept by the sales team, and the desk reads a copy of it each month.'],
  ['the lost parcel', 'A lost parcel is found by the desk: read the number of the label and ask the night team.'],
] as const;
const questions = ['What about %?', 'Tell me about %.', 'Who looks after %?', 'How does % work?', 'Explain % to me.'];

/** The same id for the same name, so that the same sessions are held out each time. */
export function sessionId(name: string): string {
  const hex = createHash('sha256').update(name).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/**
 * Puts one session per wording of a question into the database, with one completed turn for each fact.
 * @param noise answers of the sessions that will be trained on are no language
 * @returns their ids
 */
export async function putSessions({ owner }: TestPlatform, tenant: string, noise = false): Promise<string[]> {
  const ids: string[] = [];
  for (const [index, question] of questions.entries()) {
    const id = sessionId(`${tenant}/${question}`);
    ids.push(id);
    await owner
      .of(tenant)
      .insertInto('session')
      .values({ ...session, tenant, id })
      .execute();
    for (const [number, [what, answer]] of facts.entries()) {
      const spoiled = noise && !isHeldOut(id);
      const row = {
        ...turn,
        ...{ tenant, session_id: id, id: sessionId(`${id}/${number}`), number: number + 1 },
        prompt: question.replace('%', what),
        answer: spoiled ? nonsense(index * facts.length + number) : answer,
      };
      await owner.of(tenant).insertInto('turn').values(row).execute();
    }
  }
  return ids;
}

const session = {
  subject: 'mary',
  persona: null,
  status: 'closed' as const,
  close_reason: 'client' as const,
  closed_at: null,
};
const turn = {
  ...{ status: 'completed' as const, error: null, attempt: 1, usage: null, timings: null, completed_at: null },
};

/** Letters without a meaning, the same for the same number. */
function nonsense(number: number): string {
  const letters = createHash('sha512')
    .update(String(number))
    .digest('base64')
    .replaceAll(/[^a-z]/gi, '')
    .toLowerCase();
  return (letters.match(/.{1,5}/g) ?? []).join(' ');
}
