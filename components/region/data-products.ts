import {
  ClickHouse,
  Kafka,
  modelsBucket,
  ObjectStore,
  Postgres,
  policyBucket,
  Qdrant,
  SchemaRegistry,
} from '@somagent/constructs';
import { planOf } from '@somagent/events/plan.ts';
import { apiServer, upstream, volumes, type Wiring } from './products.ts';

/** Databases that a region's products own. */
const databases = [
  { name: 'temporal', owner: 'temporal' },
  { name: 'temporal_visibility', owner: 'temporal' },
  { name: 'keycloak', owner: 'keycloak' },
  { name: 'openfga', owner: 'openfga' },
  { name: 'identity', owner: 'identity' },
  { name: 'audit', owner: 'audit', readers: ['audit_writer'] },
  { name: 'sessions', owner: 'sessions', readers: ['sessions_gateway', 'sessions_relations', 'sessions_training'] },
  { name: 'memory', owner: 'memory' },
  { name: 'analytics', owner: 'analytics' },
  { name: 'training', owner: 'training' },
];

/** Where state lives. */
export interface DataProducts {
  readonly postgres: Postgres;
  readonly kafka: Kafka;
  readonly schemaRegistry: SchemaRegistry;
  readonly objectStore: ObjectStore;
  readonly qdrant: Qdrant;
  readonly clickhouse: ClickHouse;
}

export function dataProducts({ charts, plan, args }: Wiring): DataProducts {
  const { image, size } = args;
  const shared = { bootstrapImage: image('bootstrap'), plan, ...volumes(args) };
  const postgres = new Postgres(charts.postgres, 'postgres', {
    ...shared,
    image: image('postgres'),
    databases,
    members: size.postgresMembers,
    storage: size.postgresStorage,
    ...apiServer(args),
  });
  const events = planOf({ replicas: size.kafkaBrokers });
  const kafka = new Kafka(charts.kafka, 'kafka', {
    ...shared,
    image: image('kafka'),
    declared: events,
    renderer: args.kafkaRenderer,
    brokers: size.kafkaBrokers,
    storage: size.kafkaStorage,
  });
  const schemaRegistry = new SchemaRegistry(charts['schema-registry'], 'schema-registry', {
    ...shared,
    image: image('schema-registry'),
    schemas: events.schemas,
  });
  const objectStore = new ObjectStore(charts['object-store'], 'object-store', {
    ...shared,
    image: image('object-store'),
    buckets: [policyBucket, modelsBucket],
    storage: size.objectStorage,
  });
  return { postgres, kafka, schemaRegistry, objectStore, ...searchProducts({ charts, plan, args }) };
}

/** Vectors and columns: what is found and counted, never the source of truth. */
function searchProducts({ charts, plan, args }: Wiring): Pick<DataProducts, 'qdrant' | 'clickhouse'> {
  const { image, size, qdrantRenderer, clickhouseRenderer } = args;
  const qdrant = new Qdrant(charts.qdrant, 'qdrant', {
    image: qdrantRenderer === 'server' ? upstream('qdrant', args) : image('qdrant'),
    plan,
    renderer: qdrantRenderer,
    storage: size.vectorStorage,
    ...volumes(args),
  });
  const clickhouse = new ClickHouse(charts.clickhouse, 'clickhouse', {
    image: clickhouseRenderer === 'server' ? upstream('clickhouse', args) : image('clickhouse'),
    plan,
    renderer: clickhouseRenderer,
    storage: size.analyticsStorage,
    ...volumes(args),
  });
  return { qdrant, clickhouse };
}
