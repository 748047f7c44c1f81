import { copyFileSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { ImageName } from './catalogue.ts';
import { stageApicurio } from './stage/apicurio.ts';
import { stageClickHouse } from './stage/clickhouse.ts';
import { stageDebian } from './stage/debian.ts';
import { stageOwnProgram, stageTemporalSchema, stageTool } from './stage/go.ts';
import { stageKafka } from './stage/kafka.ts';
import { stageKeycloak } from './stage/keycloak.ts';
import { stageNode } from './stage/node.ts';
import { stageOpa, stagePolicy } from './stage/policy.ts';
import { stagePython } from './stage/python.ts';
import { stageEmbeddings, stagePythonService } from './stage/python-service.ts';
import { stageService } from './stage/service.ts';
import { stageSlm } from './stage/slm.ts';
import type { Stage } from './stage/stage.ts';
import { stageTraining } from './stage/training.ts';

/** What puts more than the image's own folder into its build context, by image. */
export const stages: Partial<Record<ImageName, (stage: Stage) => Promise<void>>> = {
  debian: stageDebian,
  pause: (stage) => stageOwnProgram('pause', stage),
  coredns: (stage) => stageTool('coredns', stage),
  node: stageNode,
  postgres: stagePython,
  temporal: async (stage) => {
    await stageTool('temporal-server', stage);
    await stageTemporalSchema(join(stage.folder, 'schema'), stage);
  },
  clickhouse: stageClickHouse,
  kafka: stageKafka,
  'schema-registry': stageApicurio,
  keycloak: stageKeycloak,
  openfga: (stage) => stageTool('openfga', stage),
  bootstrap: async (stage) => {
    await stageService('bootstrap', stage);
    await stageTemporalSchema(join(stage.folder, 'app/schema/temporal'), stage);
  },
  gateway: (stage) => stageService('gateway', stage),
  analytics: async (stage) => {
    await stageService('analytics', stage);
    await stagePython(stage);
    const forecast = join(stage.folder, 'app/forecast');
    mkdirSync(forecast);
    copyFileSync(join(stage.repository, 'services/analytics/forecast/model.py'), join(forecast, 'model.py'));
  },
  audit: (stage) => stageService('audit', stage),
  identity: (stage) => stageService('identity', stage),
  relations: (stage) => stageService('relations', stage),
  'memory-gateway': (stage) => stageService('memory-gateway', stage),
  orchestrator: (stage) => stageService('orchestrator', stage),
  'object-store': (stage) => stageTool('versitygw', stage),
  policy: stagePolicy,
  opa: stageOpa,
  scaler: (stage) => stageService('scaler', stage),
  training: stageTraining,
  qdrant: (stage) => stagePythonService('vector-store', 'somagent_vectors', stage),
  embeddings: stageEmbeddings,
  'ray-slm': async (stage) => {
    await stagePython(stage);
    await stageSlm(stage);
  },
};
