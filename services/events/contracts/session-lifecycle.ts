import { z } from 'zod';
import { contract } from '../contract.ts';

/** Events of the topic `session.lifecycle`. */
export const sessionLifecycle = {
  'session.opened': contract({
    version: 1,
    description: 'A session is there; owner and teams decide who may see it',
    data: z.object({ sessionId: z.uuid(), owner: z.string().min(1), teams: z.array(z.string()) }),
    aggregate: ({ sessionId }) => sessionId,
  }),
  'session.closed': contract({
    version: 1,
    description: 'A session takes no more turns',
    data: z.object({ sessionId: z.uuid(), reason: z.string() }),
    aggregate: ({ sessionId }) => sessionId,
  }),
};
