export { ConfigError, parseConfig, type RegionConfig, readConfig, type StackConfig } from './config.ts';
export type { Drill } from './drills.ts';
export type { StackOutputs } from './outputs.ts';
export { program } from './program.ts';
export { platformRealm } from './realm.ts';
