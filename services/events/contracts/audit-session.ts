import { z } from 'zod';
import { contract } from '../contract.ts';

const sessionId = z.uuid();
const bySession = (data: { readonly sessionId: string }) => data.sessionId;

/** Events of the topic `audit.session`. */
export const auditSession = {
  'session.opened': contract({
    version: 1,
    description: 'A session was opened',
    data: z.object({ sessionId, owner: z.string().min(1), persona: z.string().nullable() }),
    aggregate: bySession,
  }),
  'turn.started': contract({
    version: 1,
    description: 'An attempt at a turn began; the prompt itself stays in the database',
    data: z.object({ sessionId, turnId: z.uuid(), attempt: z.int().min(1), promptLength: z.int().min(0) }),
    aggregate: bySession,
  }),
  'turn.ended': contract({
    version: 2,
    description: 'A turn ended; recall says what was remembered before it',
    data: z.object({
      sessionId,
      turnId: z.uuid(),
      status: z.enum(['completed', 'cancelled', 'failed']),
      error: z.string().nullable(),
      recall: z
        .object({
          state: z.enum(['recalled', 'degraded', 'away', 'refused', 'off']),
          memories: z.int().min(0),
          ms: z.number().min(0),
        })
        .optional(),
    }),
    aggregate: bySession,
  }),
  'session.closed': contract({
    version: 1,
    description: 'A session was closed',
    data: z.object({ sessionId, reason: z.string() }),
    aggregate: bySession,
  }),
};
