import { z } from 'zod';
import { contract } from '../contract.ts';

const id = z.string().min(1);

/** Events of the topic `identity.changes`: each `put` carries the whole state, so that the newest one is enough. */
export const identityChanges = {
  'tenant.put': contract({
    version: 1,
    description: 'A tenant is there',
    data: z.object({ name: id, displayName: z.string(), suspended: z.boolean() }),
    aggregate: ({ name }) => `tenant/${name}`,
  }),
  'team.put': contract({
    version: 1,
    description: 'A team of the tenant is there',
    data: z.object({ name: id }),
    aggregate: ({ name }) => `team/${name}`,
  }),
  'team.removed': contract({
    version: 1,
    description: 'A team is gone',
    data: z.object({ name: id }),
    aggregate: ({ name }) => `team/${name}`,
  }),
  'user.put': contract({
    version: 1,
    description: 'A user or service account is there, with all its roles and teams',
    data: z.object({
      userId: id,
      kind: z.enum(['user', 'service-account']),
      username: id,
      roles: z.array(z.string()),
      teams: z.array(z.string()),
      suspended: z.boolean(),
    }),
    aggregate: ({ userId }) => `user/${userId}`,
  }),
  'user.removed': contract({
    version: 1,
    description: 'A user or service account is gone',
    data: z.object({ userId: id }),
    aggregate: ({ userId }) => `user/${userId}`,
  }),
};
