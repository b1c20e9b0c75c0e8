# Run by cpack before it packs: every file gets the time SOURCE_DATE_EPOCH, so that two builds give the same package.
if(DEFINED ENV{SOURCE_DATE_EPOCH})
  execute_process(COMMAND find ${CPACK_TEMPORARY_DIRECTORY} -exec touch -h -d @$ENV{SOURCE_DATE_EPOCH} {} +
                          COMMAND_ERROR_IS_FATAL ANY)
endif()
