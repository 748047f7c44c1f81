import { z } from 'zod';
import { contract } from '../contract.ts';

/** Whose memories an event is about; null where it is about none in particular. */
const scope = {
  owner: z.string().min(1).nullable(),
  team: z.string().nullable(),
  persona: z.string().nullable(),
  sessionId: z.uuid().nullable(),
};

const byOwner = ({ owner }: { readonly owner: string | null }) => owner ?? 'all';

/** Events of the topic `audit.memory`. What is remembered stays in the database. */
export const auditMemory = {
  'memory.stored': contract({
    version: 1,
    description: 'Something was remembered; the text itself stays in the database',
    data: z.object({
      ...scope,
      memoryId: z.uuid(),
      kind: z.enum(['episodic', 'semantic', 'summary']),
      length: z.int().min(1),
      expiresAt: z.iso.datetime().nullable(),
    }),
    aggregate: byOwner,
  }),
  'memory.forgotten': contract({
    version: 1,
    description: 'Memories were deleted for good: by request, or because their time was over',
    data: z.object({
      ...scope,
      reason: z.enum(['request', 'expired']),
      count: z.int().min(1),
      memoryIds: z.array(z.uuid()).max(1000),
    }),
    aggregate: byOwner,
  }),
  'memory.wiped': contract({
    version: 1,
    description:
      'The vector store was away when these memories were forgotten; now their vectors were deleted, looked for again and not found',
    data: z.object({ count: z.int().min(1), memoryIds: z.array(z.uuid()).max(1000) }),
    aggregate: () => 'all',
  }),
  'memory.exported': contract({
    version: 1,
    description: 'An export of memories began',
    data: z.object({ ...scope, count: z.int().min(0) }),
    aggregate: byOwner,
  }),
};
