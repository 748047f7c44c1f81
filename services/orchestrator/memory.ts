import { type MemoryClient, MemoryRefused } from '@somagent/memory-gateway/client.ts';
import { ApplicationFailure } from '@temporalio/common';
import type { RememberInput, Turn } from './contract.ts';
import { behalfOf } from './recall.ts';
import type { SessionStore } from './session-store.ts';

/** The most characters of prompt and of answer that an episode keeps: the memory gateway takes 8000 of a text. */
const kept = 3900;

/** How a turn is remembered. */
export const episodeOf = ({ prompt, answer }: Pick<Turn, 'prompt' | 'answer'>): string =>
  `Asked: ${prompt.slice(0, kept)}\nAnswered: ${answer.slice(0, kept)}`.trim();

/** Whom remembering asks. */
export interface RememberParts {
  readonly store: Pick<SessionStore, 'turn'>;
  /** Absent where there is no memory. */
  readonly client?: Pick<MemoryClient, 'remember'>;
}

/** Time for one attempt, milliseconds. */
const patience = 10_000;

/**
 * Has a completed turn remembered. The turn's id is the source, so a repetition changes nothing; what was forgotten
 * meanwhile stays forgotten.
 * @throws ApplicationFailure that is not tried again when the gateway refuses for good; any other error is.
 */
export async function rememberTurn({ store, client }: RememberParts, input: RememberInput): Promise<void> {
  const { tenant, sessionId, turnId, subject } = input;
  if (client === undefined) return;
  const turn = await store.turn({ tenant, sessionId }, turnId);
  if (turn?.status !== 'completed' || turn.answer.trim() === '') return;
  const memory = { text: episodeOf(turn), kind: 'episodic', source: `turn/${turnId}` } as const;
  try {
    await client.remember(behalfOf(input, subject), memory, AbortSignal.timeout(patience));
  } catch (error) {
    if (error instanceof MemoryRefused && error.isFinal) {
      throw ApplicationFailure.nonRetryable(error.message, 'MemoryRefused');
    }
    throw error;
  }
}
