import { z } from 'zod';
import { contract } from '../contract.ts';

const id = z.string().min(1);
const user = { userId: id, username: z.string().min(1) };

/** Events of the topic `audit.identity`. */
export const auditIdentity = {
  'tenant.created': contract({
    version: 1,
    description: 'A tenant was created',
    data: z.object({ name: id, displayName: z.string() }),
    aggregate: ({ name }) => name,
  }),
  'tenant.updated': contract({
    version: 1,
    description: 'A tenant was changed',
    data: z.object({ name: id, changed: z.array(z.string()) }),
    aggregate: ({ name }) => name,
  }),
  'user.created': contract({
    version: 1,
    description: 'A user was created',
    data: z.object({ ...user, roles: z.array(z.string()), teams: z.array(z.string()) }),
    aggregate: ({ userId }) => userId,
  }),
  'user.updated': contract({
    version: 1,
    description: 'A user was changed; names of the fields, and the roles and teams after the change',
    data: z.object({ ...user, changed: z.array(z.string()), roles: z.array(z.string()), teams: z.array(z.string()) }),
    aggregate: ({ userId }) => userId,
  }),
  'user.removed': contract({
    version: 1,
    description: 'A user was removed',
    data: z.object(user),
    aggregate: ({ userId }) => userId,
  }),
  'service-account.created': contract({
    version: 1,
    description: 'A service account was created',
    data: z.object({ accountId: id, clientId: id, roles: z.array(z.string()) }),
    aggregate: ({ accountId }) => accountId,
  }),
  'service-account.removed': contract({
    version: 1,
    description: 'A service account was removed',
    data: z.object({ accountId: id, clientId: id }),
    aggregate: ({ accountId }) => accountId,
  }),
  'api-key.created': contract({
    version: 1,
    description: 'An API key was created; its secret is nowhere but with its owner',
    data: z.object({ keyId: id, owner: id, scopes: z.array(z.string()), expiresAt: z.iso.datetime() }),
    aggregate: ({ keyId }) => keyId,
  }),
  'api-key.revoked': contract({
    version: 1,
    description: 'An API key was revoked',
    data: z.object({ keyId: id, owner: id, reason: z.string() }),
    aggregate: ({ keyId }) => keyId,
  }),
};
