import {
  Analytics,
  Audit,
  Gateway,
  Identity,
  MemoryGateway,
  Orchestrator,
  Relations,
  Scaler,
  Training,
} from '@somagent/constructs';
import type { DataProducts } from './data-products.ts';
import type { IdentityProducts } from './identity-products.ts';
import { apiServer, reachable, type Wiring } from './products.ts';
import type { RuntimeProducts } from './runtime-products.ts';

/** Our own services. */
export interface ServicesProducts {
  readonly identity: Identity;
  readonly audit: Audit;
  readonly relations: Relations;
  readonly memory: MemoryGateway;
  readonly analytics: Analytics;
  readonly training: Training;
  readonly orchestrator: Orchestrator;
  readonly gateway: Gateway;
}

/** What our services stand on. */
export type Foundation = DataProducts & IdentityProducts & RuntimeProducts;

export function servicesProducts({ charts, plan, args }: Wiring, foundation: Foundation): ServicesProducts {
  const { image, size } = args;
  const { temporal, slm, embeddings, keycloak, postgres, kafka, openfga } = foundation;
  const policy = foundation.policy.consumer();
  const sessions = postgres.database('sessions');
  const identity = new Identity(charts.identity, 'identity', {
    image: image('identity'),
    plan,
    database: postgres.database('identity'),
    keycloak,
    kafka: kafka.user('identity'),
    policy,
    ...apiServer(args),
    ...reachable(args.accountsUrl, args.accountsNodePort),
  });
  const audit = new Audit(charts.audit, 'audit', {
    image: image('audit'),
    plan,
    database: postgres.database('audit'),
    witness: foundation.witness,
    identity: keycloak,
    control: identity,
    kafka: kafka.user('audit'),
    policy,
    ...reachable(args.auditUrl, args.auditNodePort),
  });
  const relations = new Relations(charts.relations, 'relations', {
    image: image('relations'),
    openfga: openfga.client(),
    kafka: kafka.user('relations'),
    sessions: sessions.reader('sessions_relations'),
    identity,
  });
  const memory = new MemoryGateway(charts['memory-gateway'], 'memory-gateway', {
    image: image('memory-gateway'),
    plan,
    database: postgres.database('memory'),
    vectors: foundation.qdrant,
    embeddings,
    slm,
    identity: keycloak,
    control: identity,
    policy,
    relations: openfga.client(),
    kafka: kafka.user('memory-gateway'),
    replicas: size.memoryReplicas,
    ...apiServer(args),
    ...reachable(args.memoryUrl, args.memoryNodePort),
  });
  const analytics = new Analytics(charts.analytics, 'analytics', {
    image: image('analytics'),
    plan,
    clickhouse: foundation.clickhouse,
    database: postgres.database('analytics'),
    kafka: kafka.user('analytics'),
    schemas: foundation.schemaRegistry.reader(),
    identity: keycloak,
    control: identity,
    policy,
    ...reachable(args.analyticsUrl, args.analyticsNodePort),
  });
  const training = new Training(charts.training, 'training', {
    image: image('training'),
    plan,
    database: postgres.database('training'),
    sessions,
    store: foundation.objectStore,
    identity: keycloak,
    control: identity,
    policy,
    kafka: kafka.user('training'),
    ...reachable(args.trainingUrl, args.trainingNodePort),
  });
  const orchestrator = new Orchestrator(charts.orchestrator, 'orchestrator', {
    image: image('orchestrator'),
    temporal,
    database: sessions,
    slm,
    identity,
    kafka: kafka.user('orchestrator'),
    policy,
    memory,
    scaled: true,
  });
  new Scaler(charts.scaler, 'scaler', {
    image: image('scaler'),
    plan,
    orchestrator,
    temporal,
    slm,
    renderer: args.scalerRenderer,
    ...size.orchestratorLimits,
    ...apiServer(args),
  });
  const gateway = new Gateway(charts.gateway, 'gateway', {
    image: image('gateway'),
    plan,
    temporal,
    database: sessions.reader('sessions_gateway'),
    identity: keycloak,
    control: identity,
    relations: openfga.client(),
    kafka: kafka.user('gateway'),
    policy,
    slm,
    embeddings,
    replicas: size.gatewayReplicas,
    ...reachable(args.gatewayUrl, args.gatewayNodePort),
  });
  return { identity, audit, relations, memory, analytics, training, orchestrator, gateway };
}
