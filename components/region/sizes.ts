/** How much of everything a region gets. One word in the configuration stands for a row that is known to work. */
export interface RegionSize {
  readonly postgresMembers: number;
  readonly postgresStorage: string;
  readonly temporalReplicas: {
    readonly frontend: number;
    readonly history: number;
    readonly matching: number;
    readonly worker: number;
  };
  readonly temporalShards: number;
  readonly kafkaBrokers: number;
  readonly kafkaStorage: string;
  readonly objectStorage: string;
  readonly keycloakReplicas: number;
  readonly openfgaReplicas: number;
  readonly opaReplicas: number;
  readonly slmWorkers: number;
  /** Promoted models that have a place beside the declared ones: half a CPU of head and workers each. */
  readonly slmPromotedPlaces: number;
  readonly gatewayReplicas: number;
  readonly embeddingsReplicas: number;
  readonly memoryReplicas: number;
  readonly vectorStorage: string;
  readonly analyticsStorage: string;
  /** Workers of sessions, fewest and most. */
  readonly orchestratorLimits: { readonly min: number; readonly max: number };
}

/**
 * `small` fits on one machine with 2 cores and 8 GiB beside its control plane; `medium` survives the loss of any one
 * node; `large` has headroom for a day's peak. The number of Temporal's shards can't be changed once there is data.
 */
export const regionSizes = {
  small: {
    postgresMembers: 3,
    postgresStorage: '2Gi',
    temporalReplicas: { frontend: 1, history: 1, matching: 1, worker: 1 },
    temporalShards: 128,
    kafkaBrokers: 3,
    kafkaStorage: '2Gi',
    objectStorage: '1Gi',
    keycloakReplicas: 1,
    openfgaReplicas: 1,
    opaReplicas: 1,
    slmWorkers: 1,
    slmPromotedPlaces: 2,
    gatewayReplicas: 2,
    embeddingsReplicas: 1,
    memoryReplicas: 1,
    vectorStorage: '1Gi',
    analyticsStorage: '1Gi',
    orchestratorLimits: { min: 1, max: 2 },
  },
  medium: {
    postgresMembers: 3,
    postgresStorage: '50Gi',
    temporalReplicas: { frontend: 2, history: 2, matching: 2, worker: 2 },
    temporalShards: 512,
    kafkaBrokers: 3,
    kafkaStorage: '50Gi',
    objectStorage: '20Gi',
    keycloakReplicas: 2,
    openfgaReplicas: 2,
    opaReplicas: 2,
    slmWorkers: 2,
    slmPromotedPlaces: 4,
    gatewayReplicas: 2,
    embeddingsReplicas: 2,
    memoryReplicas: 2,
    vectorStorage: '20Gi',
    analyticsStorage: '50Gi',
    orchestratorLimits: { min: 2, max: 8 },
  },
  large: {
    postgresMembers: 3,
    postgresStorage: '200Gi',
    temporalReplicas: { frontend: 3, history: 4, matching: 3, worker: 2 },
    temporalShards: 2048,
    kafkaBrokers: 3,
    kafkaStorage: '500Gi',
    objectStorage: '200Gi',
    keycloakReplicas: 3,
    openfgaReplicas: 3,
    opaReplicas: 2,
    slmWorkers: 4,
    slmPromotedPlaces: 8,
    gatewayReplicas: 4,
    embeddingsReplicas: 4,
    memoryReplicas: 3,
    vectorStorage: '100Gi',
    analyticsStorage: '500Gi',
    orchestratorLimits: { min: 4, max: 16 },
  },
} as const satisfies Record<string, RegionSize>;
