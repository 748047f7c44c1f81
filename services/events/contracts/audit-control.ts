import { z } from 'zod';
import { contract } from '../contract.ts';

const reason = z.string().min(1);
/** Older events of this service that were lost while they could not be stored. */
const dropped = z.int().min(1).optional();
const scope = z.enum(['all', 'tenant']);
const ofTenant = (data: { readonly tenant: string }) => `tenant/${data.tenant}`;
const ofUser = (data: { readonly userId: string }) => `user/${data.userId}`;
const ofHalt = () => 'halt';
const ofTraining = () => 'training';
const ofRun = (data: { readonly runId: string }) => `training/${data.runId}`;
const sessionIds = z.array(z.uuid()).min(1);
const budget = {
  scope: z.enum(['tenant', 'team', 'persona', 'session']),
  id: z.string().min(1),
  period: z.enum(['day', 'month', 'total']),
};
const ofBudget = ({ scope, id, period }: { readonly scope: string; readonly id: string; readonly period: string }) =>
  `budget/${scope}/${id}/${period}`;

/** Events of the topic `audit.control`. */
export const auditControl = {
  'control.halted': contract({
    version: 1,
    description: 'The kill switch was pulled: for a tenant (the one of the envelope) or for everything',
    data: z.object({ scope, reason }),
    aggregate: ofHalt,
  }),
  'control.resumed': contract({
    version: 1,
    description: 'The kill switch was undone',
    data: z.object({ scope, reason }),
    aggregate: ofHalt,
  }),
  'agents.halted': contract({
    version: 1,
    description: 'The orchestrator has stopped the work that a halt asks for',
    data: z.object({ scope, sessions: z.int().min(0), milliseconds: z.number().min(0) }),
    aggregate: ofHalt,
  }),
  'agents.resumed': contract({
    version: 1,
    description: 'The orchestrator has taken up work again',
    data: z.object({ scope, sessions: z.int().min(0), milliseconds: z.number().min(0) }),
    aggregate: ofHalt,
  }),
  'tenant.suspended': contract({
    version: 1,
    description: 'A tenant was suspended',
    data: z.object({ tenant: z.string().min(1), reason }),
    aggregate: ofTenant,
  }),
  'tenant.restored': contract({
    version: 1,
    description: 'The suspension of a tenant was undone',
    data: z.object({ tenant: z.string().min(1), reason }),
    aggregate: ofTenant,
  }),
  'user.suspended': contract({
    version: 1,
    description: 'A user was suspended',
    data: z.object({ userId: z.string().min(1), reason }),
    aggregate: ofUser,
  }),
  'user.restored': contract({
    version: 1,
    description: 'The suspension of a user was undone',
    data: z.object({ userId: z.string().min(1), reason }),
    aggregate: ofUser,
  }),
  'credential.revoked': contract({
    version: 1,
    description: 'A session of a login, a token or an API key is no longer accepted',
    data: z.object({ kind: z.enum(['session', 'token', 'key']), id: z.string().min(1), reason }),
    aggregate: ({ kind, id }) => `${kind}/${id}`,
  }),
  'training.unlock-proposed': contract({
    version: 1,
    description: 'A first person proposed to unlock training',
    data: z.object({ proposalId: z.uuid(), reason, expiresAt: z.iso.datetime() }),
    aggregate: ofTraining,
  }),
  'training.unlocked': contract({
    version: 1,
    description: 'A second person approved: sessions of the tenant may train and export',
    data: z.object({ proposalId: z.uuid(), proposedBy: z.string().min(1), approvedBy: z.string().min(1) }),
    aggregate: ofTraining,
  }),
  'training.locked': contract({
    version: 1,
    description: 'Training was locked again, or a proposal to unlock it was refused or ran out',
    data: z.object({ proposalId: z.uuid().nullable(), reason }),
    aggregate: ofTraining,
  }),
  'budget.set': contract({
    version: 1,
    description: 'A budget was set or changed; null limits nothing',
    data: z.object({
      ...budget,
      tokens: z.int().min(0).nullable(),
      /** Whole millionths of a US dollar. */
      costMicros: z.int().min(0).nullable(),
    }),
    aggregate: ofBudget,
  }),
  'budget.removed': contract({
    version: 1,
    description: 'A budget was removed: what it limited is limited by the others alone',
    data: z.object(budget),
    aggregate: ofBudget,
  }),
  'training.data-approved': contract({
    version: 1,
    description: 'Somebody approved sessions: their turns may be trained on',
    data: z.object({ sessionIds, reason }),
    aggregate: ofTraining,
  }),
  'training.data-withdrawn': contract({
    version: 1,
    description: 'Somebody took approvals back: runs that begin later leave these sessions out',
    data: z.object({ sessionIds, reason }),
    aggregate: ofTraining,
  }),
  'training.run-requested': contract({
    version: 1,
    description: 'A model is to be tuned on the approved sessions',
    data: z.object({ runId: z.uuid(), recipe: z.record(z.string(), z.number()) }),
    aggregate: ofRun,
  }),
  'training.run-ended': contract({
    version: 1,
    description: 'A run ended: with a model that may be promoted, or by the gate, the policy or a failure without one',
    data: z.object({
      runId: z.uuid(),
      outcome: z.enum(['passed', 'refused', 'stopped', 'failed']),
      reasons: z.array(z.string()),
      datasetHash: z.string().nullable(),
      modelHash: z.string().nullable(),
    }),
    aggregate: ofRun,
  }),
  'model.promoted': contract({
    version: 1,
    description: 'Somebody let the model of a run serve the tenant in the place of the previous one',
    data: z.object({ runId: z.uuid(), modelHash: z.string(), previous: z.string().nullable(), reason }),
    aggregate: () => 'model',
  }),
  'policy.loaded': contract({
    version: 2,
    description: 'A service swapped its policy bundle',
    data: z.object({ service: z.string(), revision: z.string(), previous: z.string().nullable(), dropped }),
    aggregate: ({ service }) => `policy/${service}`,
  }),
  'policy.refused': contract({
    version: 2,
    description: 'A service refused a bundle and keeps the one it has',
    data: z.object({ service: z.string(), revision: z.string().nullable(), reason, dropped }),
    aggregate: ({ service }) => `policy/${service}`,
  }),
  'policy.drifted': contract({
    version: 2,
    description: 'The bundle that a service runs is not the signed one',
    data: z.object({ service: z.string(), running: z.string().nullable(), signed: z.string().nullable(), dropped }),
    aggregate: ({ service }) => `policy/${service}`,
  }),
  'audit.exported': contract({
    version: 1,
    description: 'Somebody took records out of the audit log: indexes from (included) to (excluded)',
    data: z.object({ from: z.int().min(0), to: z.int().min(0) }),
    aggregate: () => 'audit',
  }),
  'relations.repaired': contract({
    version: 1,
    description: 'The reconciliation of relations added and removed tuples',
    data: z.object({ added: z.int().min(0), removed: z.int().min(0), differences: z.array(z.string()) }),
    aggregate: () => 'relations',
  }),
};
