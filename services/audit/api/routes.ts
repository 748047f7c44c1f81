import { z } from '@hono/zod-openapi';
import { commonResponses, declareRoute, failed, json, openApiRoute } from '@somagent/governance';

const index = z.coerce.number().int().min(0);
const hash = z.base64().openapi({ description: 'SHA-256, base64' });

const entry = z
  .object({
    index: z.int(),
    hash,
    leaf: z.string().openapi({ description: 'The hashed bytes: SHA-256(0x00 ‖ UTF-8 of this)' }),
  })
  .openapi('AuditEntry');

const envelope = z.record(z.string(), z.unknown()).openapi('Event');
const verdict = z.object({ index: z.int(), event: envelope }).openapi('RecordedVerdict');

const proof = z.object({ hashes: z.array(hash) });
const inclusion = proof.extend({ index: z.int(), size: z.int(), leafHash: hash }).openapi('InclusionProof');
const consistency = proof.extend({ from: z.int(), to: z.int() }).openapi('ConsistencyProof');

const text = (type: string, description: string) => ({ description, content: { [type]: { schema: z.string() } } });
const absent = (what: string) => ({ ...commonResponses, 404: failed(what) });

/** Every route of the audit service, once. Server, OpenAPI document, policy input and coverage report come from here. */
export const routes = {
  listEntries: declareRoute({
    method: 'get',
    path: '/v1/audit/entries',
    operationId: 'listEntries',
    summary: 'Entries of the audit log in their order: those of the tenant; for an operator, all',
    capability: 'audit:read',
    audit: 'read',
    request: {
      query: z.object({
        from: index.default(0).openapi({ description: 'The first index' }),
        limit: z.coerce.number().int().min(1).max(500).default(100),
        requestId: z.string().min(1).max(200).optional(),
        topic: z.string().min(1).max(200).optional(),
      }),
    },
    responses: {
      200: json(
        z.object({ entries: z.array(entry), next: z.int().nullable() }).openapi('AuditPage'),
        'A page; `next` is the `from` of the next one',
      ),
      ...commonResponses,
    },
  }),
  getEntry: declareRoute({
    method: 'get',
    path: '/v1/audit/entries/{index}',
    operationId: 'getEntry',
    summary: 'One entry',
    capability: 'audit:read',
    audit: 'read',
    request: { params: z.object({ index }) },
    responses: { 200: json(entry, 'The entry'), ...absent('No such entry of this tenant') },
  }),
  getCheckpoint: declareRoute({
    method: 'get',
    path: '/v1/audit/checkpoint',
    operationId: 'getCheckpoint',
    summary: 'The newest checkpoint that log and witness have signed, as a C2SP note',
    capability: 'audit:verify',
    audit: 'read',
    responses: { 200: text('text/plain', 'The note'), ...absent('Nothing is witnessed yet') },
  }),
  getKeys: declareRoute({
    method: 'get',
    path: '/v1/audit/keys',
    operationId: 'getKeys',
    summary: 'The verifier keys of log and witness; compare them with those that the two gave you themselves',
    capability: 'audit:verify',
    audit: 'read',
    responses: {
      200: json(z.object({ log: z.string(), witness: z.string() }).openapi('VerifierKeys'), 'The keys'),
      ...commonResponses,
    },
  }),
  proveInclusion: declareRoute({
    method: 'get',
    path: '/v1/audit/proofs/inclusion',
    operationId: 'proveInclusion',
    summary: 'Proof that an entry is in the log (RFC 9162, section 2.1.3)',
    capability: 'audit:verify',
    audit: 'read',
    request: { query: z.object({ index, size: index.optional().openapi({ description: '@default the newest' }) }) },
    responses: { 200: json(inclusion, 'The proof'), ...absent('No such entry of this tenant') },
  }),
  proveConsistency: declareRoute({
    method: 'get',
    path: '/v1/audit/proofs/consistency',
    operationId: 'proveConsistency',
    summary: 'Proof that the log has only grown between two sizes (RFC 9162, section 2.1.4)',
    capability: 'audit:verify',
    audit: 'read',
    request: { query: z.object({ from: index, to: index.optional().openapi({ description: '@default the newest' }) }) },
    responses: { 200: json(consistency, 'The proof'), ...commonResponses },
  }),
  exportLog: declareRoute({
    method: 'get',
    path: '/v1/audit/export',
    operationId: 'exportLog',
    summary: 'The log up to its newest witnessed checkpoint, line by line, for the verifier; it is recorded itself',
    capability: 'audit:export',
    audit: 'read',
    responses: { 200: text('application/x-ndjson', 'Lines of JSON; services/audit/README.md'), ...commonResponses },
  }),
  getVerdicts: declareRoute({
    method: 'get',
    path: '/v1/verdicts/{requestId}',
    operationId: 'getVerdicts',
    summary: 'What was decided about a request, by which rule and why',
    capability: 'verdict:read',
    audit: 'read',
    request: { params: z.object({ requestId: z.string().min(1).max(200) }) },
    responses: {
      200: json(
        z.object({ requestId: z.string(), verdicts: z.array(verdict) }).openapi('Verdicts'),
        'Its verdicts, oldest first',
      ),
      ...absent('No verdict of this tenant about such a request; it may take a second to arrive'),
    },
  }),
  getOpenApi: openApiRoute,
};

/** The declared routes. */
export type Routes = typeof routes;
